"""Stream an answer to a browser that may lose its connection (Django under WSGI)."""

import json

from django.http import JsonResponse, StreamingHttpResponse

from celery_app import stream, stream_from
from celery_app.errors import LanesError, error_event


def begin(request):  # POST
    messages = [{"role": "user", "content": request.POST["question"]}]
    job = stream(model="claude-haiku-4-5", max_tokens=1000, messages=messages)
    return JsonResponse({"id": job.task_id}, status=202)


def events(request, task_id):  # GET, for the browser's EventSource, which sends Last-Event-ID by itself
    reader = stream_from(task_id, request.headers.get("Last-Event-ID"))
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(as_sse(reader), content_type="text/event-stream", headers=headers)


def as_sse(reader):
    try:
        for event in reader:
            yield f"id: {reader.last_event_id}\ndata: {json.dumps(event)}\n\n"
    except LanesError as error:  # the headers are out already: say it as the API would
        yield f"data: {json.dumps(error_event(error))}\n\n"

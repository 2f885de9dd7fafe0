"""Stream an answer to a browser that may lose its connection (Django under WSGI)."""

from django.http import JsonResponse, StreamingHttpResponse

from celery_app import stream, stream_from


def begin(request):  # POST
    messages = [{"role": "user", "content": request.POST["question"]}]
    job = stream(model="claude-haiku-4-5", max_tokens=1000, messages=messages)
    return JsonResponse({"id": job.task_id}, status=202)


def events(request, task_id):  # GET, for the browser's EventSource, which sends Last-Event-ID by itself
    reader = stream_from(task_id, request.headers.get("Last-Event-ID"))
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    # An error is an event, too; comments keep a silent connection, and show that its reader left.
    return StreamingHttpResponse(reader.sse(), content_type="text/event-stream", headers=headers)

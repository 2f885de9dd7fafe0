"""Stream an answer to a browser that may lose its connection (Flask)."""

import json

from flask import Flask, Response, request

from celery_app import stream, stream_from
from celery_app.errors import LanesError, error_event

site = Flask(__name__)


@site.post("/answers")
def begin():
    messages = [{"role": "user", "content": request.json["question"]}]
    job = stream(model="claude-haiku-4-5", max_tokens=1000, messages=messages)
    return {"id": job.task_id}, 202


@site.get("/answers/<task_id>")
def events(task_id):  # for the browser's EventSource, which sends Last-Event-ID by itself
    reader = stream_from(task_id, request.headers.get("Last-Event-ID"))
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Response(as_sse(reader), mimetype="text/event-stream", headers=headers)


def as_sse(reader):
    try:
        for event in reader:
            yield f"id: {reader.last_event_id}\ndata: {json.dumps(event)}\n\n"
    except LanesError as error:  # the headers are out already: say it as the API would
        yield f"data: {json.dumps(error_event(error))}\n\n"

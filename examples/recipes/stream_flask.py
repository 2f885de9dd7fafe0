"""Stream an answer to a browser that may lose its connection (Flask)."""

from flask import Flask, Response, request

from celery_app import stream, stream_from

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
    # An error is an event, too; comments keep a silent connection, and show that its reader left.
    return Response(reader.sse(), mimetype="text/event-stream", headers=headers)

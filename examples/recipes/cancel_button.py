"""A cancel button, for a job in any state."""

from flask import Flask

from celery_app import cancel, submit

site = Flask(__name__)


@site.post("/reports")
def begin():
    prompt = [{"role": "user", "content": "Write a long report."}]
    return {"id": submit(lane="normal", model="claude-haiku-4-5", max_tokens=4000, messages=prompt).id}, 202


@site.delete("/reports/<task_id>")
def stop(task_id):
    if not cancel(task_id):
        return {"error": "it has ended already"}, 409
    return {"state": "REVOKED"}, 202  # at once for whoever waits; a running call is closed within 0.5 s

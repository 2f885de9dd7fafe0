"""Ask within a request; each error has its HTTP status."""

from flask import Flask, request

from celery_app import ask, errors

STATUSES = {
    errors.InvalidRequest: 400,
    errors.UnknownLane: 400,
    errors.UnknownBatch: 404,
    errors.UnknownJob: 404,
    errors.StreamExpired: 404,
    errors.LaneFull: 503,
    errors.BrokerUnreachable: 503,
    errors.DeadlineExceeded: 504,
}

site = Flask(__name__)


@site.post("/ask")
def answer():
    message = ask(
        lane=request.args.get("lane", "critical"),
        model="claude-haiku-4-5",
        max_tokens=500,
        messages=request.json["messages"],
    )
    return {"answer": message.content[0].text}


@site.errorhandler(errors.LanesError)
def failed(error):
    status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 502)
    site.logger.warning("%s: %s", type(error).__name__, error)  # no prompt and no key is in it
    headers = {"Retry-After": "5"} if status == 503 else {}
    return {"error": type(error).__name__}, status, headers

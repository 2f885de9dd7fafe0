"""The Flask application: pages, and the JSON and event streams behind them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, render_template, request
from flask.typing import ResponseReturnValue

from celery_app import Batch, ask, cancel, errors, get_queue_stats, stream, stream_from, submit_many
from proj.tasks import MODEL, answers_of, summarise

WEB = Path(__file__).parents[2] / "web"  # pages, style and scripts, the same as the Django example's
EVENTS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
BUSY = errors.LaneFull, errors.BrokerUnreachable
REFUSED = errors.InvalidRequest, errors.UnknownLane, errors.UnknownBatch

app = Flask(__name__, template_folder=WEB / "templates", static_folder=WEB / "static", static_url_path="/static")
app.json.sort_keys = False  # the lanes come most important first
app.config["TRUSTED_HOSTS"] = ["127.0.0.1", "localhost"]
for url, page in {"/": "chat", "/batch": "batch", "/status": "status"}.items():
    app.add_url_rule(url, page, lambda page=page: render_template(f"{page}.html"))


@app.before_request
def refuse_other_sites() -> None:
    """Take nothing that another site's page had its reader send; there are no cookies that could be misused either."""
    if request.method != "GET" and request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        abort(403)


def told(error: Exception) -> dict[str, Any]:
    """Return an error for the browser; where the broker is, is no reader's business."""
    message = "The queue does not answer; try again." if isinstance(error, errors.BrokerUnreachable) else str(error)
    return {"type": "error", "error": {"type": type(error).__name__, "message": message}}


@app.errorhandler(errors.LanesError)
def lane_error(error: errors.LanesError) -> ResponseReturnValue:
    """Answer in the place of a view; for what is neither here nor there, the API is to blame."""
    status = 503 if isinstance(error, BUSY) else 400 if isinstance(error, REFUSED) else 502
    return told(error), status, {"Retry-After": "5"} if isinstance(error, BUSY) else {}


def call_of_request() -> dict[str, Any]:
    """Return lane and parameters of a call; what the browser has a say in is checked when it is sent."""
    body = request.get_json()
    if not isinstance(body, dict):
        raise errors.InvalidRequest(path="body", problem="has to be a JSON object")
    return {"lane": body.get("lane"), "model": MODEL, "max_tokens": 1000, "messages": body.get("messages")}


@app.post("/chat")
def start() -> ResponseReturnValue:
    """Queue a question; the page opens its stream next."""
    return {"task_id": stream(**call_of_request()).task_id}


@app.post("/ask")
def whole_answer() -> ResponseReturnValue:
    """Wait for a whole answer; the page has the title of a conversation made this way."""
    return {"text": ask(**call_of_request()).content[0].text}


@app.get("/chat/<task_id>")
def answer(task_id: str) -> ResponseReturnValue:
    """Stream an answer, from the beginning or behind what was read before; see `stop` for who does not come back."""
    return Response(stream_from(task_id, request.headers.get("Last-Event-ID")).sse(), headers=EVENTS)


@app.delete("/chat/<task_id>")
def stop(task_id: str) -> ResponseReturnValue:
    """Cancel an answer.

    A connection that breaks cancels nothing: its reader may be on the way back. Who leaves for good says so: the stop
    button and the closing page send this (chat.js). Where even that gets lost, the lane's deadline ends the job.
    """
    return {"cancelled": cancel(task_id)}


@app.post("/batches")
def submit() -> ResponseReturnValue:
    """Queue a document for each line of a file or of the text; a bad one is told by the number of its line."""
    file, form = request.files.get("file"), request.form
    name, data = (file.filename or "", file.read()) if file else ("", form.get("text", "").encode())
    calls = {number: _call_for(line, name) for number, line in enumerate(data.splitlines(), 1) if line.strip()}
    invalid = [f"Line {number} is no JSON object with a text." for number, call in calls.items() if call is None]
    if invalid and form.get("on_invalid") != "skip":
        return {"error": {"message": "Nothing was queued."}, "invalid": invalid}, 400
    try:
        batch = submit_many(list(calls.values()), form.get("lane", ""), on_invalid="skip")
    except errors.LaneFull as full:
        Batch.load(full.batch_id).cancel()  # the next try would send once more what is queued already
        raise
    return {"id": batch.id, "invalid": invalid}


def _call_for(line: bytes, file_name: str) -> dict[str, Any] | None:
    """Return the call for one document; None if its line is none."""
    try:
        text = json.loads(line)["text"] if file_name.endswith(".jsonl") else line.decode(errors="replace")
        str.encode(text)  # a number or half a surrogate pair is no text
    except (ValueError, KeyError, TypeError):
        return None
    return {"model": MODEL, "max_tokens": 200, "system": "Summarise.", "messages": [{"role": "user", "content": text}]}


@app.route("/batches/<batch_id>", methods=["GET", "DELETE"])
def progress(batch_id: str) -> ResponseReturnValue:
    """Tell how far a batch has got, and in the end the answers; DELETE cancels what is left of it."""
    batch = Batch.load(batch_id)
    if request.method == "DELETE":
        batch.cancel()
    counts = batch.counts()
    return {**asdict(counts), "answers": answers_of(batch_id) if counts.complete else None}


@app.post("/batches/<batch_id>/summary")
def summary(batch_id: str) -> ResponseReturnValue:
    """Have our own task sum all answers up, and wait for it."""
    return {"text": summarise.apply_async((batch_id,), queue="normal").get(timeout=60)}


@app.get("/stats")
def stats() -> ResponseReturnValue:
    """Tell how all lanes are, over all workers."""
    return jsonify(get_queue_stats())

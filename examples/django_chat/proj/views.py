"""The chat's views are async, which Django runs under WSGI as well; only a stream has to know its server."""

import json
from dataclasses import asdict
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.utils.deprecation import MiddlewareMixin

from celery_app import Batch, aask, acancel, astream, astream_from, errors, get_queue_stats, stream_from, submit_many
from proj.tasks import MODEL, answers_of, summarise

EVENTS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
BUSY = errors.LaneFull, errors.BrokerUnreachable
REFUSED = errors.InvalidRequest, errors.UnknownLane, errors.UnknownBatch


def told(error: Exception) -> dict[str, Any]:
    """Return an error for the browser; where the broker is, is no reader's business."""
    message = "The queue does not answer; try again." if isinstance(error, errors.BrokerUnreachable) else str(error)
    return {"type": "error", "error": {"type": type(error).__name__, "message": message}}


class LaneErrors(MiddlewareMixin):
    """What goes wrong in the lanes, as an HTTP answer that its reader can act on."""

    def process_exception(self, _request: HttpRequest, error: Exception) -> JsonResponse | None:
        """Answer in the place of a view, async or not; for what is neither here nor there, the API is to blame."""
        if not isinstance(error, errors.LanesError):
            return None
        status = 503 if isinstance(error, BUSY) else 400 if isinstance(error, REFUSED) else 502
        return JsonResponse(told(error), status=status, headers={"Retry-After": "5"} if isinstance(error, BUSY) else {})


def call_of(request: HttpRequest) -> dict[str, Any]:
    """Return lane and parameters of a call; what the browser has a say in is checked when it is sent."""
    try:
        body = dict(json.loads(request.body))
    except (ValueError, TypeError):
        raise errors.InvalidRequest(path="body", problem="has to be a JSON object") from None
    return {"lane": body.get("lane"), "model": MODEL, "max_tokens": 1000, "messages": body.get("messages")}


async def start(request: HttpRequest) -> JsonResponse:
    """Queue a question; the page opens its stream next."""
    return JsonResponse({"task_id": (await astream(**call_of(request))).task_id})


async def ask(request: HttpRequest) -> JsonResponse:
    """Wait for a whole answer; the page has the title of a conversation made this way."""
    return JsonResponse({"text": (await aask(**call_of(request))).content[0].text})


async def answer(request: HttpRequest, task_id: str) -> HttpResponseBase:
    """Stream an answer, from the beginning or behind what was read before; DELETE cancels it.

    A connection that breaks cancels nothing: its reader may be on the way back. Who leaves for good says so: the stop
    button and the closing page send DELETE (chat.js). Where even that gets lost, the lane's deadline ends the job.
    """
    if request.method == "DELETE":
        return JsonResponse({"cancelled": await acancel(task_id)})
    # Django would collect the whole stream first if it did not fit the server.
    read = astream_from if isinstance(request, ASGIRequest) else stream_from
    return StreamingHttpResponse(read(task_id, request.headers.get("Last-Event-ID")).sse(), headers=EVENTS)


def submit(request: HttpRequest) -> JsonResponse:
    """Queue a document for each line of a file or of the text; a bad one is told by the number of its line."""
    file, form = request.FILES.get("file"), request.POST
    name, data = (file.name, file.read()) if file else ("", form.get("text", "").encode())
    calls = {number: _call_for(line, name) for number, line in enumerate(data.splitlines(), 1) if line.strip()}
    invalid = [f"Line {number} is no JSON object with a text." for number, call in calls.items() if call is None]
    if invalid and form.get("on_invalid") != "skip":
        return JsonResponse({"error": {"message": "Nothing was queued."}, "invalid": invalid}, status=400)
    try:
        batch = submit_many(list(calls.values()), form.get("lane"), on_invalid="skip")
    except errors.LaneFull as full:
        Batch.load(full.batch_id).cancel()  # the next try would send once more what is queued already
        raise
    return JsonResponse({"id": batch.id, "invalid": invalid})


def _call_for(line: bytes, file_name: str) -> dict[str, Any] | None:
    """Return the call for one document; None if its line is none."""
    try:
        text = json.loads(line)["text"] if file_name.endswith(".jsonl") else line.decode(errors="replace")
        str.encode(text)  # a number or half a surrogate pair is no text
    except (ValueError, KeyError, TypeError):
        return None
    return {"model": MODEL, "max_tokens": 200, "system": "Summarise.", "messages": [{"role": "user", "content": text}]}


def progress(request: HttpRequest, batch_id: str) -> JsonResponse:
    """Tell how far a batch has got, and in the end the answers; DELETE cancels what is left of it."""
    batch = Batch.load(batch_id)
    if request.method == "DELETE":
        batch.cancel()
    counts = batch.counts()
    return JsonResponse({**asdict(counts), "answers": answers_of(batch_id) if counts.complete else None})


def summary(_request: HttpRequest, batch_id: str) -> JsonResponse:
    """Have our own task sum all answers up, and wait for it."""
    return JsonResponse({"text": summarise.apply_async((batch_id,), queue="normal").get(timeout=60)})


def stats(_request: HttpRequest) -> JsonResponse:
    """Tell how all lanes are, over all workers."""
    return JsonResponse(get_queue_stats())

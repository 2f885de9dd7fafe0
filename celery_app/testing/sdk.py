"""Anthropic's SDK with the answers of a test: the real client over a transport that asks nobody."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2

from celery_app.errors import ApiError
from celery_app.testing.answers import events_of

if TYPE_CHECKING:
    from celery_app.testing.answers import Answers

#: An API in process neither limits nor repeats, and no key opens it.
_KEY = "in-process"


def client(answers: Answers) -> anthropic.Anthropic:
    """Return a client whose calls of the Messages API are answered by a test."""
    transport = httpx2.MockTransport(lambda request: _response(answers, json.loads(request.content)))
    return anthropic.Anthropic(api_key=_KEY, max_retries=0, http_client=httpx2.Client(transport=transport))


def _response(answers: Answers, params: dict[str, Any]) -> httpx2.Response:
    try:
        message = answers.message(params)
    except ApiError as exc:
        return httpx2.Response(exc.status, json={"type": "error", "error": {"type": exc.type, "message": exc.text}})
    if not params.get("stream"):
        return httpx2.Response(200, json=message)
    lines = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events_of(message))
    return httpx2.Response(200, text="".join(lines), headers={"content-type": "text/event-stream"})

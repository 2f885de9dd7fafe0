"""Prompt: a request to the Messages API, as far as an answer needs it."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from demo.simulator.faults import SimulatedError

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

MAX_BODY_BYTES = 32 * 1024 * 1024  # "Maximum request size is 32 MB" (platform.claude.com, errors)
# Enough of the prompt to tell any two callers apart, and little enough to keep answers small.
SAID_CHARS = 60
# How a prompt asks for one of some classes: "… one word out of: web, data, other."
CLASSES = re.compile(r"\bone (?:word )?(?:out )?of(?: these(?: \w+)?)?: *([^.\n]+)", re.IGNORECASE)
UNKNOWN_MODEL = "unknown-"  # models that do not exist, for testing 404
# A request without `x-simulate` can carry its fault here: SDK users cannot always set headers.
USER_ID_PREFIX = "simulate:"


class Prompt(NamedTuple):
    """What a caller asks."""

    params: Json  # the whole request, of which the next five are fields
    model: str
    max_tokens: int
    stream: bool
    thinking: bool
    user_id: str | None
    said: str  # the first characters of the last text that the user wrote
    tool: Json | None  # that must be used, None for an answer in text
    classes: tuple[str, ...]  # of which the answer is to be one; none for an answer in its own words

    @property
    def fault(self) -> str | None:
        """What the request asks to go wrong."""
        asked = (self.user_id or "").partition(USER_ID_PREFIX)
        return asked[2] if asked[1] and not asked[0] else None


def prompt(body: bytes) -> Prompt:
    """Read a request, or raise the real API's 400, 404 or 413; nothing is checked that the answer does not need."""
    if len(body) > MAX_BODY_BYTES:
        raise SimulatedError(413, "Request exceeds the maximum size")
    with legible():
        return prompt_of(json.loads(body))


@contextmanager
def legible() -> Iterator[None]:
    """Turn what goes wrong in reading a request into a 400."""
    try:
        yield
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise SimulatedError(400, f"The request cannot be read: {type(error).__name__}: {error}") from error


def prompt_of(params: Json) -> Prompt:
    """Read the fields of a request; what is wrong with them is a SimulatedError, or for `legible` to tell."""
    for field in ("model", "max_tokens", "messages"):
        if not params.get(field):
            raise SimulatedError(400, f"{field}: Field required")
    if params["model"].startswith(UNKNOWN_MODEL):
        raise SimulatedError(404, f"model: {params['model']}")
    texts = (_text(message["content"]) for message in reversed(params["messages"]) if message["role"] == "user")
    said = next(filter(None, texts), "")
    return Prompt(
        params,
        params["model"],
        int(params["max_tokens"]),
        stream=bool(params.get("stream")),
        thinking=(params.get("thinking") or {}).get("type") in {"enabled", "adaptive"},
        user_id=(params.get("metadata") or {}).get("user_id"),
        said=said[:SAID_CHARS],
        tool=_forced_tool(params),
        # An instruction is in the system prompt or in the first line; a document may say "one of: …" further down.
        classes=_classes(_text(params.get("system") or "")) or _classes(said.partition("\n")[0]),
    )


def _text(content: Any) -> str:
    """Give a content's text, the last one of several blocks."""
    if isinstance(content, str):
        return content
    return next((block["text"] for block in reversed(content) if "text" in block), "")


def _classes(instruction: str) -> tuple[str, ...]:
    found = CLASSES.search(instruction)
    words = re.split(r",|\bor\b", found[1]) if found else ()
    names = tuple(filter(None, (word.strip(" \"'`") for word in words)))
    return names if len(names) > 1 else ()


def _forced_tool(params: Json) -> Json | None:
    choice = params.get("tool_choice") or {}
    if choice.get("type") not in {"any", "tool"}:
        return None
    fitting: list[Json] = [tool for tool in params["tools"] if choice.get("name") in {None, tool["name"]}]
    return fitting[0]

"""What may be shown of the words in which an API, or a gateway before it, refuses a call: neither prompt nor key."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

#: Characters of a refusal that are shown; a gateway's may be a whole HTML page.
SHOWN = 200

#: Characters of a content type; it, too, is what a stranger wrote.
CONTENT_TYPE_SHOWN = 80

#: A run of this many characters in both the refusal and the prompt is no coincidence: the longest words that people and
#: the API share, as in "max_tokens: Field required", are shorter, or are no part of a prompt.
REPEATED = 20

#: Characters below which a key is no secret but somebody's "test", and replacing it would garble other words.
SHORTEST_KEY = 6

#: Stand for what is left out.
WITHHELD = "its message is withheld, it repeats the prompt"
KEY = "sk-…"

#: The keys of Anthropic, and of most that imitate it; also half masked, as in ``sk-abc***xyz``.
_KEY_LIKE = re.compile(r"(?<![A-Za-z0-9])sk-[\w*.…-]{4,}")

#: Headers that carry a key.
_KEY_HEADERS = ("x-api-key", "authorization")

#: The parts of a request that are the prompt, and the fields therein whose values are names and not text.
_PROMPT = ("messages", "system", "tools")
_NAMES = frozenset({"type", "role", "id", "tool_use_id", "name", "media_type"})

#: A character as JSON or a ``repr`` writes it.
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\[nrt]")


def redacted(text: str, request: Any, keys: Collection[str]) -> str:
    """Return what may be shown of a message that came from outside.

    Args:
        text: the message.
        request: that was answered, as the HTTP client's object; None where there is none.
        keys: API keys that must not be shown, besides the request's own.
    """
    for key in sorted({*keys, *_keys_in(request)}, key=len, reverse=True):
        if len(key) >= SHORTEST_KEY:
            text = text.replace(key, KEY)
    # Before it is shortened: half a key is a key still.
    line = shortened(_KEY_LIKE.sub(KEY, text))
    return WITHHELD if _repeats(line, request) else line


def shortened(text: str, limit: int = SHOWN) -> str:
    """Return a text as one line of a limited length."""
    line = " ".join(text[: 10 * limit].split())
    return line if len(line) <= limit else f"{line[:limit]}…"


def content_type_of(headers: Mapping[str, str]) -> str:
    """Return the content type of an answer, for a message."""
    return shortened(headers.get("content-type", ""), CONTENT_TYPE_SHOWN) or "no content type"


def _keys_in(request: Any) -> Iterator[str]:
    for name in _KEY_HEADERS:
        value = request.headers.get(name) if request is not None else None
        if value:
            yield value.removeprefix("Bearer ")


def _repeats(line: str, request: Any) -> bool:
    line = _canonical(line)
    windows = [line[at : at + REPEATED] for at in range(len(line) - REPEATED + 1)]
    if not windows or request is None:
        return False
    try:
        body = request.content
    except RuntimeError:
        return True  # the requests of a batch, which were read as they were sent: nobody can compare
    prompt = "\n".join(map(_canonical, _texts_of(body)))
    return any(window in prompt for window in windows)


def _canonical(text: str) -> str:
    """One form for what JSON, ``repr`` and a page's layout write differently."""
    plain = _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else " ", text)
    return " ".join(plain.replace("\\", "").casefold().split())


def _texts_of(body: bytes) -> Iterator[str]:
    try:
        params = json.loads(body)
        parts = [params[name] for name in _PROMPT if name in params]
    except (ValueError, TypeError):
        parts = [body.decode(errors="replace")]  # not the Messages API: all of it
    for part in parts:
        yield from _texts_in(part)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts_in(each)
    elif isinstance(value, dict):
        # Pictures have no words, and may have megabytes.
        skipped = {*_NAMES, "data"} if value.get("type") == "base64" else _NAMES
        for name, each in value.items():
            if name not in skipped:
                yield from _texts_in(each)

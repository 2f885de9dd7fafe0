"""Prompt: a request to the Messages API, validated."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from demo.simulator.errors import ApiError, invalid

Json = dict[str, Any]

ROLES = frozenset({"user", "assistant"})
# Enough of the prompt to tell any two callers apart, and little enough to keep answers small.
SAID_CHARS = 60
# How a prompt asks for one of some classes: "… one word out of: web, data, other."
CLASSES = re.compile(r"\bone (?:word )?(?:out )?of(?: these(?: \w+)?)?: *([^.\n]+)", re.IGNORECASE)
# Models that do not exist, for testing 404.
UNKNOWN_MODEL = "unknown-"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a caller asks.

    Attributes:
        params: the whole request body.
        said: the first characters of the last text that the user wrote.
        tool: the tool that must be used, None for an answer in text.
        classes: of which the answer is to be one; none for an answer in its own words.
    """

    params: Json
    said: str
    tool: Json | None
    classes: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.params["model"])

    @property
    def max_tokens(self) -> int:
        """The most output tokens that the caller wants."""
        return int(self.params["max_tokens"])

    @property
    def stream(self) -> bool:
        """Whether the answer is to come as server-sent events."""
        return bool(self.params.get("stream"))

    @property
    def thinking(self) -> bool:
        """Whether the answer is to begin with a thinking block."""
        thinking = self.params.get("thinking")
        return isinstance(thinking, dict) and thinking.get("type") in {"enabled", "adaptive"}

    @property
    def user_id(self) -> str | None:
        """What `metadata.user_id` says."""
        metadata = self.params.get("metadata")
        user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
        return user_id if isinstance(user_id, str) else None


def decoded(body: bytes) -> Json:
    """Read a JSON object.

    Raises:
        ApiError: 400, it is none.
    """
    try:
        params = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"The request body is not valid JSON: {error}") from error
    if not isinstance(params, dict):
        raise invalid("The request body must be a JSON object")
    return params


def countable(body: bytes) -> Json:
    """Read the body of a request to count_tokens.

    Raises:
        ApiError: 400 or 404, as the real API answers.
    """
    params = decoded(body)
    _check_model(params)
    _check_messages(params)
    _check_tools(params)
    return params


def prompt(body: bytes) -> Prompt:
    """Read the body of a request for a message.

    Raises:
        ApiError: 400 or 404, as the real API answers.
    """
    params = countable(body)
    _check_max_tokens(params)
    if not isinstance(params.get("stream", False), bool):
        raise invalid("stream: Input should be a valid boolean")
    said = _said(params["messages"])
    # An instruction is in the system prompt or in the first line; a document may say "one of: …" further down.
    classes = _classes(_text(params.get("system", ""))) or _classes(said.partition("\n")[0])
    return Prompt(params, said[:SAID_CHARS], _forced_tool(params), classes)


def _check_model(params: Json) -> None:
    model = params.get("model")
    if model is None:
        raise invalid("model: Field required")
    if not isinstance(model, str) or not model:
        raise invalid("model: Input should be a valid string")
    if model.startswith(UNKNOWN_MODEL):
        raise ApiError(404, f"model: {model}")


def _check_max_tokens(params: Json) -> None:
    max_tokens = params.get("max_tokens")
    if max_tokens is None:
        raise invalid("max_tokens: Field required")
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool):
        raise invalid("max_tokens: Input should be a valid integer")
    if max_tokens < 1:
        raise invalid("max_tokens: Input should be greater than or equal to 1")


def _check_messages(params: Json) -> None:
    messages = params.get("messages")
    if messages is None:
        raise invalid("messages: Field required")
    if not isinstance(messages, list):
        raise invalid("messages: Input should be a valid array")
    if not messages:
        raise invalid("messages: at least one message is required")
    for place, message in enumerate(messages):
        _check_message(f"messages.{place}", message)
    if not _is_content(params.get("system", "")):
        raise invalid("system: Input should be a valid string or array of blocks")


def _check_message(place: str, message: object) -> None:
    if not isinstance(message, dict):
        raise invalid(f"{place}: Input should be an object")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise invalid(f"{place}.role: Input should be 'user' or 'assistant'")
    if content is None:
        raise invalid(f"{place}.content: Field required")
    if not _is_content(content):
        raise invalid(f"{place}.content: Input should be a valid string or array of blocks")
    if not content and role == "user":
        raise invalid(f"{place}: user messages must have non-empty content")


def _is_content(content: object) -> bool:
    if isinstance(content, list):
        return all(isinstance(block, dict) and isinstance(block.get("type"), str) for block in content)
    return isinstance(content, str)


def _said(messages: list[Json]) -> str:
    """Give the last text that the user wrote, "" if there is none."""
    written = (_text(message["content"]) for message in reversed(messages) if message["role"] == "user")
    return next(filter(None, written), "")


def _text(content: Any) -> str:
    """Give a content's text, the last one of several blocks."""
    if isinstance(content, str):
        return content
    return next((text for block in reversed(content) if isinstance(text := block.get("text"), str)), "")


def _classes(instruction: str) -> tuple[str, ...]:
    found = CLASSES.search(instruction)
    words = re.split(r",|\bor\b", found[1]) if found else ()
    names = tuple(filter(None, (word.strip(" \"'`") for word in words)))
    return names if len(names) > 1 else ()


def _check_tools(params: Json) -> None:
    tools = params.get("tools") or []
    if not isinstance(tools, list):
        raise invalid("tools: Input should be a valid array")
    for place, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise invalid(f"tools.{place}: Input should be an object with a name")


def _forced_tool(params: Json) -> Json | None:
    match params.get("tool_choice"):
        case {"type": "any"}:
            name = None
        case {"type": "tool", "name": str(name)}:
            pass
        case _:
            return None
    tools = params.get("tools")
    if not tools:
        raise invalid("tool_choice: may only be specified while providing tools")
    for tool in tools:
        if name in {None, tool["name"]}:
            return dict(tool)
    raise invalid(f"tool_choice.name: Tool '{name}' not found in provided tools")

"""The parameters of a Messages API call, checked without the SDK before anything is queued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StrictInt, StrictStr, Tag, ValidationError

from celery_app.errors import InvalidRequest

#: Every content block that the Messages API takes (SDK 2.13, ``ContentBlockParam``); a test holds this to the SDK.
BLOCK_TYPES = (
    "bash_code_execution_tool_result",
    "code_execution_tool_result",
    "container_upload",
    "document",
    "image",
    "redacted_thinking",
    "search_result",
    "server_tool_use",
    "text",
    "text_editor_code_execution_tool_result",
    "thinking",
    "tool_result",
    "tool_search_tool_result",
    "tool_use",
    "web_fetch_tool_result",
    "web_search_tool_result",
)

#: Parameters of the SDK's method that are ours to decide: how the answer travels, and how long it may take.
REFUSED = {
    "stream": "is not for a job to choose; send tasks.stream_message for a stream",
    "timeout": "is not for a job to choose; the lane's call_timeout and deadline decide",
}


class _Params(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Text(_Params):
    type: Literal["text"]
    text: StrictStr


class _Sourced(_Params):
    type: Literal["image", "document"]
    source: dict[str, Any]


class _ToolUse(_Params):
    type: Literal["tool_use"]
    id: StrictStr
    name: StrictStr
    input: dict[str, Any]


class _ToolResult(_Params):
    type: Literal["tool_result"]
    tool_use_id: StrictStr


class _OtherBlock(_Params):
    """A block that only the API itself can judge further."""

    type: Literal[BLOCK_TYPES]  # type: ignore[valid-type]


#: Tags of the unions below stand in angle brackets, to be told from the caller's data in an error's path.
_SHAPES = {
    "text": "<text>",
    "image": "<sourced>",
    "document": "<sourced>",
    "tool_use": "<tool_use>",
    "tool_result": "<tool_result>",
}


def _shape(block: Any) -> str:
    kind = block.get("type") if isinstance(block, Mapping) else getattr(block, "type", None)
    return _SHAPES.get(kind, "<other>") if isinstance(kind, str) else "<other>"


_Block = Annotated[
    Annotated[_Text, Tag("<text>")]
    | Annotated[_Sourced, Tag("<sourced>")]
    | Annotated[_ToolUse, Tag("<tool_use>")]
    | Annotated[_ToolResult, Tag("<tool_result>")]
    | Annotated[_OtherBlock, Tag("<other>")],
    Discriminator(_shape),
]


def _content_form(content: Any) -> str:
    return "<string>" if isinstance(content, str) else "<blocks>"


_Content = Annotated[
    Annotated[StrictStr, Tag("<string>")] | Annotated[list[_Block], Tag("<blocks>")],
    Discriminator(_content_form),
]


class _Message(_Params):
    role: Literal["user", "assistant", "system"]
    content: _Content


class _Request(_Params):
    model: Annotated[StrictStr, Field(min_length=1)]
    max_tokens: Annotated[StrictInt, Field(ge=0)]
    messages: Annotated[list[_Message], Field(min_length=1)]
    system: _Content | None = None


def check_request(params: Mapping[str, Any]) -> None:
    """Check the keyword arguments of ``create_message``; what the API adds tomorrow passes.

    Raises:
        InvalidRequest: with the path of the first bad field, as in ``messages.0.role``; never its value.
    """
    for name, reason in REFUSED.items():
        if name in params:
            raise InvalidRequest(path=name, problem=reason)
    try:
        _Request.model_validate(params)
    except ValidationError as exc:
        error = exc.errors(include_input=False, include_url=False)[0]
        raise InvalidRequest(path=_path(error["loc"]), problem=_problem(error)) from None


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if not str(part).startswith("<"))


def _problem(error: Any) -> str:
    message: str = error["msg"]
    return message[0].lower() + message[1:]


def describe_request(params: Mapping[str, Any]) -> str:
    """Return what logs, events and Flower may show of a request: never a word of its text."""
    messages = params.get("messages")
    count = len(messages) if isinstance(messages, list) else "?"
    return f"model={params.get('model')!r}, messages={count}, max_tokens={params.get('max_tokens')!r}"

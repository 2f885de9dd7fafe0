"""The parameters of a Messages API call, checked without the SDK before anything is queued."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
    field_validator,
)

from celery_app.errors import InvalidRequest

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
    """A block that only the API itself can judge further; tomorrow's are among them."""

    type: Annotated[StrictStr, Field(min_length=1)]


#: Tags of the unions below stand in angle brackets, to be told from the caller's data in an error's path.
_SHAPES = {
    "text": "<text>",
    "image": "<sourced>",
    "document": "<sourced>",
    "tool_use": "<tool_use>",
    "tool_result": "<tool_result>",
}


#: Fields of a picture or document that say nothing about where it comes from.
_ASIDES = frozenset({"type", "source", "cache_control", "title", "context", "citations"})


def _shape(block: Any) -> str:
    kind = block.get("type") if isinstance(block, Mapping) else getattr(block, "type", None)
    shape = _SHAPES.get(kind, "<other>") if isinstance(kind, str) else "<other>"
    if shape == "<sourced>" and isinstance(block, Mapping) and "source" not in block and not set(block) <= _ASIDES:
        return "<other>"  # a gateway that takes a picture from another field; but from somewhere it has to come
    return shape


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
    role: Annotated[StrictStr, Field(min_length=1)]
    content: _Content

    @field_validator("role")
    @classmethod
    def _is_not_misspelt(cls, role: str) -> str:
        """Refuse a known role's near miss; any other may be one that the API knows and we do not."""
        near = () if role in ROLES else difflib.get_close_matches(role.strip().casefold(), ROLES, n=1, cutoff=_NEAR)
        if near:
            raise ValueError(f"is unknown, did you mean {near[0]!r}?")
        return role


#: The roles of the Messages API.
ROLES = ("user", "assistant", "system")

#: From how alike on a role is a misspelt one, by `difflib`: "usr" is 0.86 like "user", "uses" 0.75.
_NEAR = 0.8


#: Characters of a model's name: the longest known have 40.
_LONGEST_MODEL = 200

_HeaderValue = Annotated[StrictStr, Field(pattern=r"^[\x20-\x7e]*$")]


class _Request(_Params):
    model: Annotated[StrictStr, Field(min_length=1, max_length=_LONGEST_MODEL)]
    max_tokens: Annotated[StrictInt, Field(ge=0)]
    messages: Annotated[list[_Message], Field(min_length=1)]
    system: _Content | None = None
    betas: list[_HeaderValue] | None = None
    extra_headers: dict[StrictStr, _HeaderValue] | None = None
    extra_query: dict[str, Any] | None = None
    extra_body: dict[str, Any] | None = None

    @field_validator("extra_body")
    @classmethod
    def _checks_are_not_got_around(cls, body: dict[str, Any] | None) -> dict[str, Any] | None:
        twice = sorted(set(body or ()) & {"model", "max_tokens", "messages", "system"})
        if twice:
            raise ValueError(f"{', '.join(twice)} is an argument of its own")
        return body


def check_request(params: Mapping[str, Any]) -> None:
    """Check the keyword arguments of ``create_message``; what the API adds tomorrow passes.

    Raises:
        InvalidRequest: with the path of the first bad field, as in ``messages.0.role``; never its value.
    """
    for name, reason in REFUSED.items():
        if name in params or name in (params.get("extra_body") or ()):
            raise InvalidRequest(path=name, problem=reason)
    for name, value in params.items():
        check_json(value, name)
    try:
        _Request.model_validate(params)
    except ValidationError as exc:
        error = exc.errors(include_input=False, include_url=False)[0]
        raise InvalidRequest(path=_path(error["loc"]), problem=_problem(error)) from None


def check_json(value: Any, path: str) -> None:
    """Check that a value reaches the API as it is: JSON's own types, finite numbers, text that is Unicode.

    Raises:
        InvalidRequest: with the path of the first value that is not.
    """
    if isinstance(value, str):  # first: most values are, and to ask for a Mapping takes long
        _check_text(value, path)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            check_json(each, f"{path}.{index}")
    elif isinstance(value, Mapping):
        for name, each in value.items():
            check_json(each, f"{path}.{name}" if isinstance(name, str) else _refuse(path, "a key has to be a string"))
    elif isinstance(value, float) and not math.isfinite(value):
        _refuse(path, f"JSON knows no {value}")
    elif value is not None and not isinstance(value, bool | int | float):
        _refuse(path, f"JSON knows no {type(value).__name__}")


def _check_text(text: str, path: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse(path, "half a surrogate pair is no text that UTF-8 can say")


def _refuse(path: str, problem: str) -> NoReturn:
    raise InvalidRequest(path=path, problem=problem) from None


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if not str(part).startswith("<"))


def _problem(error: Any) -> str:
    if "_OtherBlock" in error["msg"]:
        return "input should be a content block, an object with a type"
    message: str = error["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def describe_request(params: Mapping[str, Any]) -> str:
    """Return what logs, events and Flower may show of a request: never a word of its text."""
    messages = params.get("messages")
    count = len(messages) if isinstance(messages, list) else "?"
    model = str(params.get("model"))[:_LONGEST_MODEL]
    return f"model={model!r}, messages={count}, max_tokens={params.get('max_tokens')!r}"

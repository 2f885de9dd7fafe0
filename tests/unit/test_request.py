from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest

from celery_app.errors import InvalidRequest
from tasks.request import BLOCK_TYPES, check_request, describe_request

TEXT = "the patient's name is Rumpelstiltskin"


def request(**changes: Any) -> dict[str, Any]:
    """Return the parameters of a valid call, with some changed; None removes one."""
    params = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": TEXT}], **changes}
    return {name: value for name, value in params.items() if value is not None}


def content(*blocks: Any) -> dict[str, Any]:
    """Return the parameters of a call with these content blocks."""
    return request(messages=[{"role": "user", "content": list(blocks)}])


@pytest.mark.parametrize(
    ("params", "path"),
    [
        (request(max_tokens=None), "max_tokens"),
        (request(model=None), "model"),
        (request(messages=None), "messages"),
        (request(messages="hello"), "messages"),
        (request(messages=[]), "messages"),
        (request(messages=[{"role": "usr", "content": "hi"}]), "messages.0.role"),
        (request(messages=[{"role": "user", "content": 5}]), "messages.0.content"),
        (request(messages=[{"role": "user"}]), "messages.0.content"),
        (content({"type": "txt", "text": "hi"}), "messages.0.content.0.type"),
        (content({"type": "text"}), "messages.0.content.0.text"),
        (content({"type": "text", "text": 5}), "messages.0.content.0.text"),
        (content({"type": "text", "text": "hi"}, "hi"), "messages.0.content.1"),
        (content({"type": "image"}), "messages.0.content.0.source"),
        (content({"type": "tool_result"}), "messages.0.content.0.tool_use_id"),
        (request(max_tokens="5"), "max_tokens"),
        (request(max_tokens=True), "max_tokens"),
        (request(max_tokens=-1), "max_tokens"),
        (request(system=5), "system"),
        (request(stream=True), "stream"),
        (request(timeout=3), "timeout"),
    ],
)
def test_a_bad_field_is_named_by_its_path_and_never_by_its_value(params: dict[str, Any], path: str) -> None:
    """The error says where the mistake is, in the caller's own terms, and repeats nothing of the prompt."""
    with pytest.raises(InvalidRequest) as caught:
        check_request(params)

    assert caught.value.path == path
    assert TEXT not in str(caught.value)


def test_what_the_api_may_know_passes() -> None:
    """Parameters and fields that are new to us are the API's to judge."""
    check_request(request(temperature=0.2, brand_new={"a": 1}, system=[{"type": "text", "text": "s"}]))
    check_request(content({"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}))
    check_request(content({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]}))
    check_request(content({"type": "thinking", "thinking": "…", "signature": "s"}))


def test_the_known_blocks_are_those_of_the_sdk() -> None:
    """A new SDK with a new block type makes this test fail, so that the list grows with it."""
    from anthropic.types import ContentBlockParam

    kinds = {kind for block in get_args(ContentBlockParam) for kind in get_args(get_type_hints(block)["type"])}

    assert set(BLOCK_TYPES) == kinds


def test_a_description_shows_no_text() -> None:
    """Logs, events and Flower get the model, the number of messages and max_tokens."""
    assert describe_request(request(system=TEXT)) == "model='m', messages=1, max_tokens=5"


@pytest.mark.parametrize("params", [{}, {"messages": 3}, {"model": None, "messages": None}])
def test_a_description_of_nonsense_is_no_error(params: dict[str, Any]) -> None:
    """A description may be asked for before anything has been checked."""
    assert "messages=?" in describe_request(params)

from typing import Any

import pytest

from celery_app.errors import InvalidRequest
from tasks.request import check_request, describe_request

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
        (request(messages=[{"role": "User", "content": "hi"}]), "messages.0.role"),
        (request(messages=[{"role": "asistant", "content": "hi"}]), "messages.0.role"),
        (request(messages=[{"role": "", "content": "hi"}]), "messages.0.role"),
        (request(messages=[{"role": 5, "content": "hi"}]), "messages.0.role"),
        (content({"text": "hi"}), "messages.0.content.0.type"),
        (content({"type": None, "text": "hi"}), "messages.0.content.0.type"),
        (content({"type": "", "text": "hi"}), "messages.0.content.0.type"),
        (content({"type": ["text"]}), "messages.0.content.0.type"),
        (content({"type": "image", "cache_control": {"type": "ephemeral"}}), "messages.0.content.0.source"),
        (content({"type": "image", "source": "x"}), "messages.0.content.0.source"),
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
def test_a_bad_field_is_named_by_its_path_and_never_by_its_value(params, path):
    """The error says where the mistake is, in the caller's own terms, and repeats nothing of the prompt."""
    with pytest.raises(InvalidRequest) as caught:
        check_request(params)

    assert caught.value.path == path
    assert TEXT not in str(caught.value)


def test_what_the_api_may_know_passes():
    """Parameters and fields that are new to us are the API's to judge."""
    check_request(request(temperature=0.2, brand_new={"a": 1}, system=[{"type": "text", "text": "s"}]))
    check_request(content({"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}))
    check_request(content({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]}))
    check_request(content({"type": "thinking", "thinking": "…", "signature": "s"}))


@pytest.mark.parametrize(
    "block",
    [
        {"type": "mid_conv_system", "content": [{"type": "text", "text": "s"}]},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "image", "file_id": "f_1"},
        {"type": "hologram", "nested": [{"deep": [None, 1, {"a": True}]}]},
        {"type": "text", "text": "hi", "brand_new": [1, None]},
        {"type": "tool_use", "id": "t", "name": "n", "input": {}, "caller": {"type": "direct"}},
    ],
)
@pytest.mark.parametrize("place", ["user", "assistant", "system"])
def test_a_block_of_tomorrow_passes(block, place):
    """In a message of either side and in the system prompt, in tool results too; only the API knows all blocks."""
    check_request(
        request(system=[block]) if place == "system" else request(messages=[{"role": place, "content": [block]}])
    )
    check_request(content({"type": "tool_result", "tool_use_id": "t", "content": [block]}))


@pytest.mark.parametrize("role", ["tool", "developer", "function", "critic", "model", "system"])
def test_a_role_that_another_api_knows_passes(role):
    """Only a known role's misspelling is certainly nonsense."""
    check_request(request(messages=[{"role": "user", "content": "hi"}, {"role": role, "content": "hi"}]))


def test_every_block_of_the_sdk_passes_whatever_is_in_it():
    """What the SDK's types know today is known by its type alone, but for the five that we look into."""
    kinds = ("web_search_tool_result", "thinking", "redacted_thinking", "server_tool_use", "container_upload")
    for kind in kinds:
        check_request(content({"type": kind, "anything": [kind]}))


def test_a_description_shows_no_text():
    """Logs, events and Flower get the model, the number of messages and max_tokens."""
    assert describe_request(request(system=TEXT)) == "model='m', messages=1, max_tokens=5"


@pytest.mark.parametrize("params", [{}, {"messages": 3}, {"model": None, "messages": None}])
def test_a_description_of_nonsense_is_no_error(params):
    """A description may be asked for before anything has been checked."""
    assert "messages=?" in describe_request(params)

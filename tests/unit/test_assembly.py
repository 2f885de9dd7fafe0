"""A stream that is nearly right adds up to its message, and its readers get what they are written for."""

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from celery_app.errors import NotAMessage
from tasks.assembly import Assembly
from tasks.whole_events import events_of

Json = dict[str, Any]

START = {
    "type": "message_start",
    "message": {
        "id": "i",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    },
}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
HELLO = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}
END_BLOCK = {"type": "content_block_stop", "index": 0}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
STOP = {"type": "message_stop"}
TEXT = [{"type": "text", "text": "Hello"}]


def added(*events: Json) -> tuple[Json, list[Json]]:
    """Return the message that events add up to, and what readers get."""
    assembly = Assembly("asked")
    passed = [each for event in events for each in assembly.add(json.loads(json.dumps(event)))]
    return assembly.message(), passed


def delta(fields: Any, **more: Any) -> Json:
    """Return a delta's event."""
    return {"type": "content_block_delta", "index": 0, "delta": fields, **more}


def read(events: list[Json]) -> list[str]:
    """Return the texts that a reader who trusts the Messages API has; it raises where something is missing."""
    blocks: dict[int, str] = {}
    for event in events:
        if event["type"] == "message_start":
            assert event["message"]["content"] == []
        elif event["type"] == "content_block_start":
            blocks[event["index"]] = event["content_block"].get("text", "")
        elif event["type"] == "content_block_delta":
            blocks[event["index"]] += event["delta"].get("text", "")
    return list(blocks.values())


def test_a_stream_as_the_api_sends_it_is_passed_on_untouched():
    """Its usage is a total, and nothing is added."""
    events = [START, {"type": "ping"}, BLOCK, HELLO, END_BLOCK, END, STOP]
    message, passed = added(*events)
    assert passed == events
    usage = {"input_tokens": 3, "output_tokens": 9}
    assert message == {**START["message"], "content": TEXT, "stop_reason": "end_turn", "usage": usage}


NEARLY_RIGHT = {
    "no block start": [START, HELLO, END_BLOCK, END, STOP],
    "no start at all": [HELLO, END, STOP],
    "no start, no end": [HELLO, STOP],
    "block start without a block": [START, {**BLOCK, "content_block": None}, HELLO, END, STOP],
    "block without a type": [START, {**BLOCK, "content_block": {}}, HELLO, END, STOP],
    "block with null text": [START, {**BLOCK, "content_block": {"type": "text", "text": None}}, HELLO, END, STOP],
    "null index": [START, {**BLOCK, "index": None}, {**HELLO, "index": None}, {**END_BLOCK, "index": None}, STOP],
    "no index": [
        START,
        {k: v for k, v in BLOCK.items() if k != "index"},
        {"type": HELLO["type"], "delta": HELLO["delta"]},
        STOP,
    ],
    "index as text": [START, {**BLOCK, "index": "0"}, {**HELLO, "index": "0"}, STOP],
    "index as a fraction": [START, {**BLOCK, "index": 0.0}, {**HELLO, "index": 0.0}, STOP],
    "index of nonsense": [START, {**BLOCK, "index": {}}, {**HELLO, "index": [1]}, STOP],
    "null index in deltas only": [START, BLOCK, {**HELLO, "index": None}, STOP],
    "null delta": [START, BLOCK, delta(None), HELLO, delta(None), STOP],
    "null text": [
        START,
        BLOCK,
        delta({"type": "text_delta", "text": None}),
        HELLO,
        delta({"type": "text_delta"}),
        STOP,
    ],
    "null usage": [START, BLOCK, HELLO, {**END, "usage": None}, STOP],
    "strange usage": [START, BLOCK, HELLO, {**END, "usage": ["many"]}, STOP],
    "null end": [START, BLOCK, HELLO, {"type": "message_delta", "delta": None}, STOP],
    "end that says its own type": [
        START,
        BLOCK,
        HELLO,
        {**END, "delta": {"type": "message_delta", "content": None}},
        STOP,
    ],
    "start without a message": [{"type": "message_start"}, BLOCK, HELLO, STOP],
    "start with null parts": [{**START, "message": {"id": None, "content": None, "usage": None}}, BLOCK, HELLO, STOP],
    "start twice": [START, START, BLOCK, START, HELLO, STOP],
    "block start twice": [START, BLOCK, BLOCK, HELLO, STOP],
    "end twice": [START, BLOCK, HELLO, END, {**END, "delta": {"stop_reason": None}}, STOP],
    "unknown events between": [START, {"type": "hologram"}, BLOCK, {"type": "x", "index": None}, HELLO, STOP],
    "stop of no block": [START, {**END_BLOCK, "index": 7}, BLOCK, HELLO, STOP],
}


@pytest.mark.parametrize("name", NEARLY_RIGHT)
def test_what_is_missing_is_made_up_for(name):
    """The text is there, in the message and for a reader who relies on each start, index and delta."""
    message, passed = added(*NEARLY_RIGHT[name])
    assert message["content"] == TEXT
    assert read(passed) == ["Hello"]
    assert (message["type"], message["role"]) == ("message", "assistant")
    assert isinstance(message["usage"], dict)
    assert isinstance(message["id"], str)
    assert message["model"]
    kinds = [event["type"] for event in passed]
    assert kinds.index("message_start") < kinds.index("content_block_start") < kinds.index("content_block_delta")
    assert kinds.count("message_start") == kinds.count("content_block_start") == 1


def test_a_start_that_was_never_sent_names_the_model_that_was_asked():
    """And no usage, since nobody has counted; the budget's estimate stands."""
    message, _ = added(HELLO, STOP)
    assert (message["model"], message["usage"]) == ("asked", {})


def test_a_null_stop_reason_forgets_nothing():
    """A gateway repeats the end with less in it; a reason that nobody knows is kept."""
    message, _ = added(
        START, {**END, "delta": {"stop_reason": "moonrise"}}, {**END, "delta": {"stop_reason": None}}, STOP
    )
    assert message["stop_reason"] == "moonrise"


def test_blocks_that_are_all_numbered_alike_stay_apart():
    """Each start begins a block, and what follows without an index of its own is its."""
    second = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    piece = {"type": "input_json_delta", "partial_json": '{"a": 1}'}
    message, passed = added(
        START, BLOCK, HELLO, {**BLOCK, "index": None, "content_block": second}, delta(piece, index=None), STOP
    )
    assert message["content"] == [*TEXT, {**second, "input": {"a": 1}}]
    assert [event["index"] for event in passed if "index" in event] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("block", "deltas", "whole"),
    [
        ({"type": "hologram", "light": [1]}, [], {"type": "hologram", "light": [1]}),
        (
            {"type": "hologram"},
            [{"type": "hologram_delta", "data": "ab"}, {"type": "hologram_delta", "data": "cd"}],
            {"type": "hologram", "data": "abcd"},
        ),
        (
            {"type": "h", "of": [1]},
            [{"type": "h_delta", "of": [2], "n": 1, "o": {"a": 1}}, {"type": "h_delta", "n": 2, "o": {"b": 2}}],
            {"type": "h", "of": [1, 2], "n": 2, "o": {"a": 1, "b": 2}},
        ),
        (
            {"type": "compaction", "content": None},
            [{"type": "compaction_delta", "content": "short"}],
            {"type": "compaction", "content": "short"},
        ),
        (None, [{"type": "hologram_delta", "data": "ab"}], {"type": "hologram", "data": "ab"}),
        (
            {"type": "text", "text": "", "new": 1},
            [{"type": "text_delta", "text": "x", "more": 2}],
            {"type": "text", "text": "x", "new": 1},
        ),
        (
            None,
            [{"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "s"}],
            {"type": "thinking", "thinking": "hm", "signature": "s"},
        ),
        (
            None,
            [{"type": "input_json_delta", "partial_json": '{"a":'}, {"type": "input_json_delta", "partial_json": "1}"}],
            {"type": "tool_use", "input": {"a": 1}},
        ),
        (None, [{"type": "citations_delta", "citation": {"c": 1}}], {"type": "text", "citations": [{"c": 1}]}),
    ],
)
def test_data_of_blocks_and_deltas_that_we_do_not_know_is_kept(block, deltas, whole):
    """In the message; and readers have each delta as it came."""
    begin = [] if block is None else [{**BLOCK, "content_block": block}]
    message, passed = added(START, *begin, *map(delta, deltas), STOP)
    assert message["content"] == [whole]
    assert [event["delta"] for event in passed if event["type"] == "content_block_delta"] == deltas


def test_an_event_that_we_do_not_know_reaches_readers():
    """As it came."""
    event = {"type": "brand_new", "deep": [{"a": None}]}
    assert added(START, event, STOP)[1] == [START, event, STOP]


@pytest.mark.parametrize(
    "events",
    [
        [STOP],
        [
            START,
            {**START, "message": {**START["message"], "id": "other"}, "_": BLOCK},
            BLOCK,
            {**START, "message": {"id": "x"}},
        ],
        [START, delta("Hello")],
        [START, delta({"type": "text_delta", "text": 5})],
        [START, delta({"text": "Hello"})],
        [START, {**BLOCK, "content_block": "text"}],
        [{"type": "message_start", "message": "hi"}],
        [{"type": "message_start", "message": {"type": "error"}}],
        [{"type": "message_start", "message": {"type": ["message"]}}],
        [{"type": "message_start", "message": {"content": "hi"}}],
        [START, {**END, "delta": "stop"}],
    ],
)
def test_what_means_nothing_is_no_message(events):
    """One ordinary failure, whichever way it is wrong."""
    with pytest.raises(NotAMessage):
        added(*events)


WHOLE = {
    **START["message"],
    "stop_reason": "end_turn",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Hello", "citations": None},
        {"type": "tool_use", "id": "t", "name": "n", "input": {"a": ["ü"]}},
        {"type": "hologram", "light": [1]},
    ],
}


def test_a_whole_message_becomes_a_stream_and_a_message_again():
    """Readers of a gateway that does not stream get all of it at once."""
    message, passed = added(*events_of(WHOLE))
    assert message == WHOLE
    assert "Hello" in read(passed)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["message", "text", "0"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "text", "index", "content", "id", "partial_json", "usage", "input"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)
_KINDS = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
]
_DELTA = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["text_delta", "thinking_delta", "input_json_delta", "signature_delta", "citations_delta", "x_delta"]
        )
    },
    optional={
        "text": _JSON,
        "thinking": _JSON,
        "partial_json": _JSON,
        "signature": _JSON,
        "citation": _JSON,
        "data": _JSON,
    },
)
_EVENT = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from([*_KINDS, "ping", "error"]) | _JSON,
        "index": st.integers(-1, 2) | _JSON,
        "message": _JSON,
        "content_block": _JSON,
        "delta": _DELTA | _JSON,
        "usage": _JSON,
    },
)


@settings(max_examples=300)
@given(st.lists(_EVENT | st.sampled_from([START, BLOCK, HELLO, END, STOP]), max_size=8))
def test_nothing_but_one_ordinary_failure_escapes(events):
    """Whatever a gateway sends; and what readers get of it can be read."""
    assembly = Assembly("m")
    passed: list[Json] = []
    try:
        for event in events:
            passed += assembly.add(event)
        passed += assembly.end(said=True)
        json.dumps(assembly.message())
    except NotAMessage:
        return
    for event in passed:
        if event.get("type") == "content_block_delta":
            assert isinstance(event["delta"], dict)
            assert type(event["index"]) is int

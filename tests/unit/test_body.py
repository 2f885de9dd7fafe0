"""The body of a job's message is read as Celery's worker reads it, and written so that it can be."""

import json
from typing import Any

import pytest
from celery import Celery

from celery_app.broker.body import read_body, with_body
from celery_app.dead_letters.steps import Steps

CHAIN = [{"task": "b", "options": {"task_id": "id-b", "chord": {"task": "sum"}}}, {"task": "c", "options": {}}]


def message_of(compression: str | None = None, **options: Any) -> dict[str, Any]:
    """Return the message that kombu makes of a job."""
    app = Celery(broker="memory://", set_as_current=False)
    with app.connection_for_write() as connection, app.amqp.Producer(connection.default_channel) as producer:
        made = app.amqp.as_task_v2("id-a", "a", ("x",), {"y": 1}, **options)
        kept: list[dict[str, Any]] = []
        channel = connection.default_channel
        channel._put = lambda _, message, **__: kept.append(message)
        app.amqp.send_task_message(producer, "a", made, compression=compression, serializer="json")
    message: dict[str, Any] = json.loads(json.dumps(kept[0]))
    return message


@pytest.mark.parametrize("compression", [None, "gzip", "bzip2"])
def test_a_body_is_read_and_written_whatever_it_is_packed_in(compression):
    """Arguments and what Celery wants done around them; another body is packed like the first."""
    message = message_of(compression, chain=CHAIN)
    body = read_body(message)
    assert (body.args, body.kwargs, body.embed["chain"]) == (["x"], {"y": 1}, CHAIN)
    again = with_body(message, body._replace(args=["z"]))
    assert read_body(again).args == ["z"]
    assert {**again, "body": ""} == {**message, "body": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"body": "%%%"},
        {"body": "bm8ganNvbg=="},
        {"body": "e30="},
        {"headers": {"compression": "no such"}},
        {"headers": {"compression": "application/x-gzip"}},
        {"content-type": "application/x-python-serialize"},
        {"properties": []},
    ],
    ids=str,
)
def test_a_body_that_is_none_is_a_value_error(change):
    """Whatever somebody has sent, and no code comes out of it."""
    with pytest.raises(ValueError, match=r"\w"):
        read_body({**message_of(), **change})


def test_a_job_is_parted_from_its_chord_and_keeps_its_chain():
    """Its own chord, and the one that the end of its chain is a part of; the steps keep the rest of their options."""
    steps = Steps.read(json.dumps(message_of(chain=CHAIN, chord={"task": "sum"})).encode())
    assert (steps.chained, steps.has_chord) == (["id-b"], True)
    parted = Steps.read(steps.without_chord())
    assert (parted.chained, parted.has_chord) == (["id-b"], False)
    assert parted.body is not None
    assert (parted.body.args, parted.body.kwargs) == (["x"], {"y": 1})
    assert not Steps.read(b"nonsense").has_chord

"""Celery's options among a call's parameters."""

import asyncio
import datetime as dt
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from anthropic.resources.messages import Messages
from celery import Task

from celery_app import aask, ask, astream, create_app, stream, submit, submit_many
from celery_app.errors import InvalidItem, InvalidRequest
from celery_app.jobs.options import _KNOWN
from celery_app.testing import in_process
from tasks import create_message

CALL: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}

WAYS: dict[str, Callable[..., Any]] = {
    "submit": submit,
    "ask": ask,
    "stream": stream,
    "aask": lambda **params: asyncio.run(aask(**params)),
    "astream": astream,
    "submit_many": lambda **params: submit_many([params]),
}


@pytest.fixture(autouse=True)
def lanes():
    """Calls that would be answered, if they were made."""
    app = create_app()
    app.set_current()
    with in_process() as stand_in:
        yield stand_in
    app.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("queue", "batch", r"takes lane='batch', not queue="),
        ("queue", "elsewhere", r"takes lane='normal', not queue="),
        ("routing_key", "critical", r"takes lane='critical', not routing_key="),
        ("countdown", 60, r"create_message\.apply_async\(kwargs=\{…\}, queue='normal', countdown=…\)"),
        ("eta", dt.datetime(2030, 1, 1, tzinfo=dt.UTC), "apply_async"),
        ("expires", 10, "apply_async"),
        ("priority", 0, "apply_async"),
        ("task_id", "mine", "apply_async"),
        ("link", None, "apply_async"),
        ("time_limit", 10, "apply_async"),
        ("kwargs", {"model": "m"}, "takes the parameters themselves"),
        ("args", (), "takes the parameters themselves"),
    ],
)
def test_an_option_is_told_what_it_should_be(way, option, value, advice, lanes):
    """By the function that was given it, before anything is queued."""
    with pytest.raises(InvalidRequest, match=rf"{option}: {way}\(\) .*{advice}|{option}: {way}\(\) {advice}"):
        WAYS[way](**{**CALL, option: value})
    assert lanes.jobs() == []


@pytest.mark.parametrize(
    ("option", "advice"),
    [("queue", "queue='batch'"), ("lane", "queue='batch'"), ("countdown", "countdown=…"), ("wait", "wait=…")],
)
def test_an_option_in_delay_is_told_where_it_belongs(option, advice, lanes):
    """`delay` takes no options, so all that it is given are parameters."""
    with pytest.raises(InvalidRequest, match=rf"{option}: .*apply_async\(kwargs=\{{…\}}, {advice}\)"):
        create_message.delay(**CALL, **{option: "batch"})
    assert lanes.jobs() == []


def test_an_item_with_an_option_is_named():
    """By its index."""
    with pytest.raises(InvalidItem, match=r"Item 1: queue: submit_many\(\) takes lane='batch'"):
        submit_many([CALL, {**CALL, "queue": "batch"}])


def test_what_tomorrows_api_may_take_passes(lanes):
    """Only Celery's own names are refused, and `extra_body` passes even those."""
    submit(**CALL, effort="high", memory={"type": "auto"}, extra_body={"priority": 1})

    (job,) = lanes.jobs()
    assert (job.params["effort"], job.params["extra_body"]) == ("high", {"priority": 1})


def test_no_parameter_of_the_api_is_taken_for_an_option():
    """As far as the SDK knows them."""
    assert not _KNOWN & set(inspect.signature(Messages.create).parameters)


def test_each_option_that_celery_names_is_known():
    """A new release may bring one."""
    named = set(inspect.signature(Task.apply_async).parameters) - {"self", "options"}
    assert named <= _KNOWN

"""Prompts and keys stay where they belong, whatever an API repeats of them."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from client_rig import IN_TIME_S, Rig, params, web_app
from worker_process import worker

from celery_app import dead_letters
from celery_app.client import Client
from celery_app.connection import redis_client
from demo.simulator import running
from tasks import create_message, stream_message
from tests.conftest import close

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Valkey

SAID = "Rumpelstiltskin is the patient's name"
KEYS = {"EZAI_API_KEY": "sk-secret-0123", "EZAI_API_KEY_BATCH": "another-secret-0123"}
SECRETS = ("Rumpelstiltskin", *KEYS.values())

TASKS = (create_message, stream_message)

#: The last makes a job return, the others make it fail.
REFUSED_KEY = "echo_key"
FAULTS = ("echo_input", "echo_prompt", "echo_key", "echo_prompt_again", "503;retry-after=1e308")


@pytest.fixture(scope="module")
def up(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A worker whose keys are secret, and whose lanes give up early."""
    with valkey.client(14) as redis:
        redis.flushdb()
    app = web_app(valkey.url(14))
    with running() as api:
        attempts = {"LANES_CRITICAL_ATTEMPTS": "2", "LANES_BATCH_ATTEMPTS": "2"}
        env = {"CELERY_BROKER_URL": valkey.url(14), "EZAI_BASE_URL": api.url, **KEYS, **attempts}
        with worker(tmp_path_factory.mktemp("worker"), "-c", "8", **env) as started:
            yield Rig(app, Client(app), api, started, env)
    close(app)


@pytest.fixture(scope="module")
def events(up: Rig) -> list[dict[str, Any]]:
    """Everything that Flower would hear of jobs that meet each fault, whole and streamed, in two lanes."""
    seen: list[dict[str, Any]] = []
    with up.app.connection_for_read() as connection:
        receiver = up.app.events.Receiver(connection, handlers={"*": seen.append})
        with receiver.consumer_context() as (listening, _, _):
            with suppress(TimeoutError):
                listening.drain_events(timeout=0.5)  # which subscribes
            # A key that is refused keeps batch jobs queued: these come last, and each task to a budget that is open.
            others = [fault for fault in FAULTS if fault != REFUSED_KEY]
            for tasks, faults in ((TASKS, others), *(((task,), (REFUSED_KEY,)) for task in TASKS)):
                forget_budgets(up)
                jobs = {
                    up.app.tasks[task.name].apply_async(kwargs=params(SAID, fault), queue=lane).id
                    for task in tasks
                    for fault in faults
                    for lane in ("critical", "batch")
                }
                end = time.monotonic() + IN_TIME_S
                while jobs - {event["uuid"] for event in seen if event["type"] == "task-failed"} - away(seen):
                    assert time.monotonic() < end, "the jobs' events did not come"
                    with suppress(TimeoutError):
                        listening.drain_events(timeout=1.0)
    return seen


def forget_budgets(up: Rig) -> None:
    """Open what the API has shut."""
    redis = redis_client(up.app)
    for key in redis.keys("lanes:budget:*"):
        redis.delete(key)


def away(seen: list[dict[str, Any]]) -> set[str]:
    """Return the jobs that wait in the broker, for an hour or until somebody gives them another key."""
    retried = (event for event in seen if event["type"] == "task-retried")
    return {event["uuid"] for event in retried if any(word in event["exception"] for word in ("503", "401"))}


def test_no_event_shows_prompt_or_key(events: list[dict[str, Any]]) -> None:
    """Neither its description nor its traceback, of a job that failed or of one that is tried again."""
    kinds = {event["type"] for event in events}
    assert {"task-failed", "task-retried"} <= kinds
    for secret in SECRETS:
        assert secret not in str(events)


def test_no_log_line_shows_prompt_or_key(up: Rig, events: list[dict[str, Any]]) -> None:
    """Tracebacks included: none is chained to the SDK's exception, which shows the whole body."""
    log = up.worker.output()
    assert "raised expected" in log
    assert "anthropic." not in log
    for secret in SECRETS:
        assert secret not in log


def test_no_result_shows_prompt_or_key(up: Rig, events: list[dict[str, Any]]) -> None:
    """Neither the error nor the traceback that the result backend keeps."""
    redis = redis_client(up.app)
    results = [redis.get(key).decode() for key in redis.keys("celery-task-meta-*")]
    assert len(results) == 2 * 2 * len(FAULTS)
    for secret in (*SECRETS, "anthropic."):
        assert secret not in str(results)


def test_no_stream_and_no_dead_letters_reason_shows_prompt_or_key(up: Rig, events: list[dict[str, Any]]) -> None:
    """A reader and an operator see the API's words as everybody does."""
    redis = redis_client(up.app)
    streams = [redis.xrange(key) for key in redis.keys("lanes:stream:*")]
    reasons = [letter.reason for letter in dead_letters.find(up.app)]
    assert streams
    assert reasons
    for secret in SECRETS:
        assert secret not in str(streams)
        assert secret not in str(reasons)


@pytest.mark.slow
def test_no_log_shows_a_prompt_however_much_it_is_to_tell(up: Rig, tmp_path: Path, valkey: Valkey) -> None:
    """At DEBUG Celery's pool would write each job's arguments down, and the SDK each request."""
    with valkey.client(15) as redis:
        redis.flushdb()
    env = {**up.env, "CELERY_BROKER_URL": valkey.url(15)}
    app = web_app(valkey.url(15))
    with worker(tmp_path, "-c", "2", "-l", "DEBUG", **env) as talkative:
        for task in (create_message, stream_message):
            result = app.tasks[task.name].apply_async(kwargs=params(SAID), queue="critical")
            assert result.get(timeout=IN_TIME_S)["type"] == "message"
        output = talkative.output()
    close(app)

    assert "DEBUG" in output
    assert [secret for secret in SECRETS if secret in output] == []

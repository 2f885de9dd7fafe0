"""What a project's tests get from `celery_app.testing`: no broker, no worker and no API are there."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message
from celery import Celery, _state, chain, chord, group, shared_task
from celery.exceptions import MaxRetriesExceededError, TimeoutError as NotInTime

from celery_app import (
    Batch,
    aask,
    acancel,
    ask,
    astream,
    cancel,
    create_app,
    install,
    stream,
    stream_from,
    submit,
    submit_many,
)
from celery_app.client import Client
from celery_app.errors import (
    ApiError,
    BrokerUnreachable,
    DeadlineExceeded,
    EagerRefused,
    InvalidItem,
    InvalidRequest,
    InvalidSettings,
    LaneFull,
    UnknownLane,
    WouldBlock,
)
from celery_app.testing import in_process
from tasks import LaneTask, create_message
from tasks.assembly import Assembly

#: Where nothing listens: 1 is a port of the system's.
NOWHERE = "redis://127.0.0.1:1/0"

CALL: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}

#: Milliseconds that a call may take in process; it is 0.4 ms on two idle cores.
MOST_MS = 50


@shared_task(bind=True, base=LaneTask, name="unit.shout")
def shout(self: LaneTask, text: str) -> str:
    """Draw on the budget, and answer."""
    with self.admit(input_tokens=len(text), model="m"):
        return text.upper()


@shared_task(bind=True, base=LaneTask, name="unit.stubborn", default_retry_delay=60)
def stubborn(self: LaneTask, successes_after: int) -> int:
    """Fail so many times."""
    if self.request.retries < successes_after:
        raise self.retry(exc=ValueError("not yet"))
    return int(self.request.retries)


@shared_task(bind=True, base=LaneTask, name="unit.digest")
def digest(self: LaneTask, messages: list[dict[str, Any]]) -> Any:
    """Go on as a call."""
    raise self.replace(create_message.si(**CALL, system=f"{len(messages)} messages").set(queue="normal"))


@shared_task(bind=True, base=LaneTask, name="unit.impatient")
def impatient(self: LaneTask) -> str:
    """Wait for another job, which a slot must not."""
    return str(ask(**CALL).id)


@shared_task(name="unit.words")
def words(message: dict[str, Any]) -> str:
    """Be a project's own task, which is in no lane."""
    return text_of(message)


def text_of(message: dict[str, Any]) -> str:
    """Return the text of a message."""
    return "".join(block.get("text", "") for block in message["content"])


def read(events: Any) -> str:
    """Return the text of a stream."""
    return "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")


@pytest.fixture
def project():
    """A project's application, current, whose broker is not there."""
    with installed(NOWHERE) as app:
        yield app


@contextmanager
def installed(broker: str | None) -> Iterator[Celery]:
    """Put the lanes on an application, and leave the process's default one what it was."""
    before = _state.default_app
    app = Celery("project", broker=broker, set_as_current=False)
    install(app)
    _state.default_app = before
    app.set_current()
    try:
        yield app
    finally:
        before.set_current()
        app.close()


@pytest.fixture(params=[False, True], ids=["", "eager"])
def lanes(project, request):
    """The fixture of the package, with Celery's eager mode and without."""
    project.conf.task_always_eager = request.param
    with in_process() as stand_in:
        yield stand_in


def test_each_way_to_ask_is_answered_as_the_test_says(lanes):
    """`ask`, `submit`, `delay`, `apply_async`, `apply` and sending by name have the answer that was set."""
    lanes.answer("Paris.")

    message = ask(**CALL)
    assert isinstance(message, Message)
    assert message.content[0].text == "Paris."
    for result in (
        submit(**CALL),
        create_message.delay(**CALL),
        create_message.apply_async(kwargs=CALL, queue="batch"),
        create_message.apply(kwargs=CALL),
    ):
        assert result.successful()
        assert text_of(result.get()) == "Paris."
    assert [job.lane for job in lanes.jobs()] == ["critical", "normal", "normal", "batch", "normal"]


def test_a_stream_comes_in_deltas_and_adds_up(lanes):
    """The events are those of the API; with thoughts, tools and text they add up to the message."""
    content = [
        {"type": "thinking", "thinking": "Well, let me see.", "signature": "c2ln"},
        {"type": "text", "text": "Paris, I think.\n"},
        {"type": "tool_use", "id": "t", "name": "look_up", "input": {"city": "Paris", "n": 1}},
    ]
    lanes.answer({"content": content, "stop_reason": "tool_use"})

    events = stream(**CALL)
    assembly, kinds = Assembly(), []
    for event in events:
        assembly.add(event)
        kinds.append(event["type"])

    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert kinds.count("content_block_delta") > len(content)
    assert assembly.message() == events.message
    assert events.message is not None
    assert events.message["content"] == content


def test_a_reader_goes_on_where_it_left(lanes):
    """With the id of the last event, as after a broken connection."""
    lanes.answer("one two three")
    events = stream(**CALL)
    first = [next(events) for _ in range(4)]

    rest = list(stream_from(events.task_id, events.last_event_id))

    assert read([*first, *rest]) == "one two three"


def test_coroutines_are_answered(lanes):
    """`aask`, `astream` and `acancel` in an event loop."""
    lanes.answer("one two")

    async def view() -> tuple[str, list[Any], bool]:
        message, *others = await asyncio.gather(*(aask(**CALL) for _ in range(20)))
        assert {other.content[0].text for other in others} == {"one two"}
        events = [event async for event in astream(**CALL)]
        return message.content[0].text, events, await acancel(submit(**CALL))

    text, events, cancelled = asyncio.run(view())
    assert (text, read(events), cancelled) == ("one two", "one two", False)


def test_answers_come_in_order_and_may_be_functions(lanes):
    """The last one stays; a function sees the call's parameters."""
    lanes.answer("first", lambda params: f"{params['model']} says {params['messages'][0]['content']}")

    assert [text_of(submit(**CALL).get()) for _ in range(3)] == ["first", "m says hello", "m says hello"]


def test_something_that_is_no_answer_is_refused(lanes):
    """Where the test says it, and not in the view."""
    with pytest.raises(TypeError, match="not int"):
        lanes.answer(7)  # type: ignore[arg-type]


def test_a_failure_reaches_each_caller_in_its_form(lanes):
    """`ask` raises, a result has failed, a stream ends with the API's own event."""
    lanes.fail(status=529, text="Overloaded")

    with pytest.raises(ApiError, match="529 overloaded_error: Overloaded"):
        ask(**CALL)
    assert submit(**CALL).failed()
    assert [event["error"]["type"] for event in stream(**CALL)] == ["overloaded_error"]
    assert [job.state for job in lanes.jobs()] == ["FAILURE"] * 3


def test_an_error_of_the_tests_own_is_raised(lanes):
    """Such as the deadline's, to see what a view makes of it."""
    lanes.fail(DeadlineExceeded(where="in the queue", allowed=30))

    with pytest.raises(DeadlineExceeded, match="in the queue"):
        ask(**CALL)


def test_what_production_refuses_is_refused(lanes):
    """A wrong role, a misspelt lane, a bad item: where the call is made, and no job is there."""
    with pytest.raises(InvalidRequest, match="messages"):
        ask(model="m", max_tokens=9, messages=[{"role": "usr", "content": "x"}])
    with pytest.raises(UnknownLane, match="did you mean 'critical'"):
        create_message.apply_async(kwargs=CALL, queue="critcal")
    with pytest.raises(InvalidItem, match="Item 1: max_tokens"):
        submit_many([CALL, {"model": "m", "messages": CALL["messages"]}])
    assert lanes.jobs() == []
    with pytest.raises(UnknownLane, match="did you mean 'batch'"):
        lanes.jobs("bach")


def test_jobs_are_there_to_be_looked_at(lanes):
    """Lane, task, parameters, headers, state and result of each."""
    create_message.apply_async(kwargs=CALL, queue="batch", headers={"customer": "7"}, countdown=60)
    shout.apply_async(("hi",), queue="critical")

    (call,) = lanes.jobs("batch")
    assert (call.task, call.params, call.headers["customer"]) == ("tasks.create_message", CALL, "7")
    assert call.headers["eta"]
    (own,) = lanes.jobs(task="unit.shout")
    assert (own.lane, own.args, own.params, own.state, own.result) == ("critical", ["hi"], {}, "SUCCESS", "HI")


def test_a_batch_is_worked_off(lanes):
    """Its counts and results, by its handle and by its id; what is invalid is left out."""
    seen: list[Batch] = []
    batch = submit_many([CALL, {"model": "m"}, CALL], on_invalid="skip", progress=seen.append, wait=60)

    found = Batch.load(batch.id)
    assert [(result.index, result.error) for result in found.results()] == [(0, None), (2, None)]
    assert (found.counts().done, found.counts().invalid, found.counts().complete) == (2, 1, True)
    assert seen == [batch]
    lanes.fail(status=400, text="no")
    (refused,) = submit_many([CALL]).results()
    assert (refused.message, str(refused.error).startswith("The API refused")) == (None, True)


def test_jobs_can_be_held_and_drained(lanes):
    """Held, nothing runs and nobody waits; drained, the most important lane goes first."""
    lanes.hold()
    late, soon = submit("batch", **CALL), submit("critical", **CALL)
    batch = submit_many([CALL, CALL], "normal")
    events = stream("normal", **CALL)

    assert (late.state, batch.counts().done) == ("PENDING", 0)
    for wait in (late.get, lambda: list(batch.results())):
        with pytest.raises((NotInTime, TimeoutError)):
            wait()
    with pytest.raises(DeadlineExceeded):
        ask(**CALL)
    with pytest.raises(DeadlineExceeded):
        list(events)

    drained = [job.lane for job in lanes.drain()]
    assert drained == ["critical", "normal", "normal", "batch"]
    assert (soon.state, late.state, batch.counts().done) == ("SUCCESS", "SUCCESS", 2)
    assert lanes.drain() == []


def test_what_is_held_can_be_cancelled(lanes):
    """One job, or a batch; each is REVOKED and does not run. What has ended is not cancelled."""
    done = submit(**CALL)
    lanes.hold()
    job, batch, events = submit(**CALL), submit_many([CALL] * 3), stream(cancel_on_close=True, **CALL)

    assert (cancel(done), cancel(job)) == (False, True)
    batch.cancel()
    events.close()

    assert lanes.drain() == []
    assert (job.state, batch.counts().cancelled) == ("REVOKED", 3)
    assert [job.state for job in lanes.jobs("critical")] == ["REVOKED"]


def test_a_full_lane_and_a_dead_broker_can_be_had(lanes):
    """At once, so that a view's answer to them can be tested."""
    lanes.fill("critical")
    with pytest.raises(LaneFull, match="critical is full"):
        ask(**CALL)
    assert text_of(submit(**CALL).get())
    lanes.cut()
    with pytest.raises(BrokerUnreachable):
        submit(**CALL)


def test_a_task_of_the_projects_own_runs_with_room_in_its_budget(lanes):
    """`self.admit` grants, and the task does what it does."""
    assert shout.delay("hi").get() == "HI"


def test_a_task_of_the_projects_own_gets_the_answers_through_the_sdk(lanes):
    """The real client, whole and streamed, with the test's answers and refusals."""
    import anthropic

    lanes.answer("one two")
    with lanes.sdk() as client:
        assert client.messages.create(**CALL).content[0].text == "one two"
        with client.messages.stream(**CALL) as events:
            assert events.get_final_text() == "one two"
        lanes.fail(status=401, text="bad key")
        with pytest.raises(anthropic.AuthenticationError, match="bad key"):
            client.messages.create(**CALL)


def test_a_retry_runs_at_once_and_ends(lanes):
    """As often as the lane allows; it stays one job."""
    assert stubborn.apply_async((2,), queue="batch").get() == 2
    with pytest.raises((ValueError, MaxRetriesExceededError)):
        stubborn.apply_async((1_000,), queue="critical").get()

    assert [(job.lane, job.attempts) for job in lanes.jobs()] == [("batch", 3), ("critical", 3)]


def test_chains_groups_and_chords_work(lanes):
    """With steps in lanes, and a step that is replaced by a call."""
    step = create_message.si(**CALL).set(queue="normal")
    lanes.answer("one", "two", "three", "four", "five")

    assert text_of(chain(step, step).delay().get()) == "two"
    assert sorted(map(text_of, group(step, step).delay().get())) == ["four", "three"]
    assert text_of(chord([step, step], digest.s().set(queue="batch")).delay().get()) == "five"
    assert lanes.jobs("normal")[-1].params["system"] == "2 messages"


def test_a_chain_goes_on_in_a_task_that_is_in_no_lane(project):
    """In eager mode, as the project has it for its own tasks."""
    project.conf.task_always_eager = True
    with in_process() as lanes:
        lanes.answer("the end")
        result = chain(create_message.si(**CALL).set(queue="normal"), words.s()).delay()
        assert result.get() == "the end"


def test_a_task_that_would_block_its_slot_is_refused(lanes):
    """As in a worker, though in process it would go well."""
    with pytest.raises(WouldBlock, match="ask"):
        impatient.delay().get(disable_sync_subtasks=False)


def test_nothing_is_left_for_the_next_test(project):
    """Neither jobs nor answers nor held lanes nor results; and the application has its own backend back."""
    backend = project._backend_cache
    with in_process() as lanes:
        lanes.answer("first")
        lanes.hold()
        lanes.fill()
        with pytest.raises(RuntimeError, match="one fixture or block at a time"), in_process():
            pass
    with in_process() as lanes:
        result = submit(**CALL)
        assert (result.state, len(lanes.jobs())) == ("SUCCESS", 1)
        assert text_of(result.get()) != "first"
    assert project._backend_cache is backend


def test_threads_share_the_stand_in(lanes):
    """A web server's, say; each has its own answer, and none is refused for what another does."""
    lanes.answer(lambda params: params["messages"][0]["content"])
    failures: list[BaseException | str] = []

    def view(n: int) -> None:
        try:
            for _ in range(10):
                message = ask(**{**CALL, "messages": [{"role": "user", "content": str(n)}]})
                if message.content[0].text != str(n):
                    failures.append(message.content[0].text)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the test is to show it
            failures.append(exc)

    threads = [threading.Thread(target=view, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len(lanes.jobs("critical")) == 200


def test_a_call_takes_milliseconds(lanes):
    """A suite of a thousand views gains no minute."""
    ask(**CALL)
    begun = time.perf_counter()
    for _ in range(20):
        ask(**CALL)
    assert (time.perf_counter() - begun) / 20 * 1_000 < MOST_MS


def test_a_client_of_another_application_is_answered(lanes):
    """Not only the process's own."""
    with installed(NOWHERE) as other:
        lanes_app = create_app()
        assert Client(lanes_app).ask(**CALL).content
        assert Client(other).ask(**CALL).content
    lanes_app.close()


def test_eager_mode_without_the_fixture_is_refused(project):
    """A call in process would be paid for, and no budget drawn on; the error says what to do, without a broker."""
    project.conf.task_always_eager = True
    step = create_message.si(**CALL).set(queue="normal")
    for call in (
        lambda: ask(**CALL),
        lambda: create_message.delay(**CALL),
        lambda: submit_many([CALL]),
        lambda: list(stream(**CALL)),
        lambda: chain(step, step).delay(),
        lambda: shout.delay("hi").get(),
    ):
        with pytest.raises(EagerRefused, match=r"celery_app\.testing"):
            call()
    assert words.delay({"content": []}).get() == ""


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("broker", ["memory://", None])
def test_no_broker_is_asked_at_any_url(broker, eager, monkeypatch):
    """Celery's own for tests, and the default URL, where nothing listens."""
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    with installed(broker) as app:
        app.conf.task_always_eager = eager
        step = create_message.si(**CALL).set(queue="normal")
        with in_process() as lanes:
            lanes.answer("Paris.")
            assert ask(**CALL).content[0].text == "Paris."
            assert read(stream(**CALL)) == "Paris."
            assert text_of(chain(step, step).delay().get()) == "Paris."
            assert [text_of(result.message or {}) for result in submit_many([CALL]).results()] == ["Paris."]
            assert not cancel(submit(**CALL))


def test_a_broker_in_memory_takes_no_job_without_the_fixture():
    """It would be gone with the process, and nobody would say so."""
    with installed("memory://") as app:
        for send in (lambda: Client(app).submit(**CALL), lambda: Client(app).submit_many([CALL])):
            with pytest.raises(InvalidSettings, match=r"memory://"):
                send()


TESTS = """
import sys
import pytest
from celery_app import ask
import project
CALL = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}

@pytest.mark.parametrize("n", range(8))
def test_view(lanes, n):
    lanes.answer(str(n))
    assert ask(**CALL).content[0].text == str(n)
    assert len(lanes.jobs()) == 1
"""

LIGHT = """
import sys

def test_the_plugin_is_there(pytestconfig):
    assert pytestconfig.pluginmanager.has_plugin("ezai-lanes")

def test_nothing_of_ours_is_loaded():
    assert {"celery_app", "celery", "redis", "kombu", "tasks"} & {*sys.modules} == set()
"""

PROJECT = """
from celery import Celery
from celery_app import install
app = Celery("project", broker="redis://127.0.0.1:1/0")
install(app)
"""


def pytest_in(folder: Path, *arguments: str, **files: str) -> str:
    """Run pytest in a folder with these files, as a project would; return what it says."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "EZAI_", "LANES_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    said = subprocess.run(
        [*command, "--rootdir", str(folder), *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return said.stdout + said.stderr


def test_the_fixture_is_there_wherever_the_package_is_installed(tmp_path):
    """With nothing in conftest.py."""
    assert "8 passed" in pytest_in(tmp_path, project=PROJECT, test_views=TESTS)


def test_the_fixture_works_in_parallel_processes(tmp_path):
    """As pytest-xdist runs a suite."""
    assert "8 passed" in pytest_in(tmp_path, "-n", "2", project=PROJECT, test_views=TESTS)


def test_a_suite_that_does_not_ask_for_it_loads_nothing(tmp_path):
    """Neither our package nor Celery, in any project of the environment."""
    assert "2 passed" in pytest_in(tmp_path, test_light=LIGHT)

"""README's worker command, at Celery's default log level, has a line for every job that ends badly."""

import re
import signal
import time
from typing import Any

import pytest
from kit.client_rig import Rig, fresh, params, rig
from kit.records import ids_in
from kit.script_client import Held, ScriptClient
from kit.waiting import wait_until
from kit.worker import worker

from celery_app.budget.terms import write_terms
from celery_app.connections.redis_client import redis_client
from celery_app.process.bounded_log import BoundedLog
from celery_app.routing import DEADLINE_AT
from celery_app.settings import settings_of
from tasks import create_message

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

DB = 11
SAID = "Rumpelstiltskin"


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """A worker that was given no log level."""
    folder = tmp_path_factory.mktemp("worker")
    # The last level counts: what `celery worker` has where nobody says anything.
    silent = {"options": ("-l", "WARNING"), "ready": False}
    with rig(valkey, DB, folder, **silent, LANES_CRITICAL_ATTEMPTS="2") as up:
        wait_until(lambda: redis_client(up.app).zcard("lanes:workers:critical"), "the worker's sign of life", 60.0)
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test."""
    return fresh(shared)


def lines_of(up: Rig, *words: str) -> list[str]:
    """Return the log's lines with all of these words."""
    return [line for line in up.worker.output().splitlines() if all(word in line for word in words)]


def line_of(up: Rig, *words: str) -> str:
    """Wait for the one line with these words, and return it."""
    wait_until(lambda: lines_of(up, *words), f"a line with {words}\n{up.worker.output()[-2_000:]}")
    (line,) = lines_of(up, *words)
    assert "WARNING" in line
    assert SAID not in line
    return line


def send(up: Rig, fault: str | None, lane: str = "critical", **options: Any) -> Any:
    """Send a call that meets a fault."""
    return up.app.tasks[create_message.name].apply_async(kwargs=params(SAID, fault), queue=lane, **options)


def test_a_refusal_that_ends_the_job(up):
    """One line, with lane, task, id, attempts and the API's own words, and no traceback."""
    job = send(up, "400")
    line = line_of(up, job.id)
    assert f"critical: tasks.create_message[{job.id}] failed after 1 attempt: ApiError: " in line
    assert "400 invalid_request_error" in line
    assert "Traceback" not in up.worker.output()


def test_a_refusal_that_passes_and_the_end_of_all_attempts(up):
    """A line for the refused call with its attempt, and one for the failed job, which names the dead letter."""
    job = send(up, "529")
    failed = line_of(up, job.id, "failed")
    assert (
        f"critical: tasks.create_message[{job.id}] failed after 2 attempts, kept as a dead letter: ApiError" in failed
    )
    refused = line_of(up, job.id, "goes back to its lane")
    assert "in attempt 1 of 2: ApiError: The API refused the call: 529" in refused


def test_a_deadline_that_passed_in_the_queue(up):
    """The API was never called, and the line says why."""
    job = send(up, None, headers={"submitted_at": time.time() - 9, DEADLINE_AT: time.time() - 1})
    assert "DeadlineExceeded: The job's deadline passes in the queue" in line_of(up, job.id)
    assert not up.api.calls()


def test_a_deadline_before_the_next_attempt(up):
    """So is one that could only be called again too late."""
    job = send(up, "503;retry-after=3600")
    line = line_of(up, job.id)
    assert "failed after 1 attempt: DeadlineExceeded: The job's deadline passes before its next attempt" in line


def test_an_unknown_task(up):
    """Its dead letter is told with lane, task and id."""
    job = up.app.send_task("somebody.elses", (SAID,), queue="batch")
    line = line_of(up, job.id)
    assert f"batch: somebody.elses[{job.id}] goes to the dead letters: unknown task" in line


def test_what_nobody_can_read_is_told(up):
    """The worker that takes it out of a lane's list says so, once, with none of its words."""
    redis_client(up.app).lpush("batch", f"{SAID} is no message")
    assert "batch: ?[unreadable-" in line_of(up, "goes to the dead letters: undecodable: ")


def test_a_job_that_killed_its_workers_is_told(up):
    """After the last of its deaths it is dead-lettered by whoever reaps; the line has its task and its id."""
    redis = redis_client(up.app)
    write_terms(redis, "", settings_of(up.app), [("batch", "m")])
    up.worker.process.send_signal(signal.SIGSTOP)  # the job is others'
    try:
        job = send(up, None, "batch")

        def dead_lettered() -> bool:
            ScriptClient(redis).claim(lease_ms=1)  # a process that dies of it; the next one reaps
            return job.id in ids_in(redis, "dead")

        wait_until(dead_lettered, "the last of its deaths")
    finally:
        up.worker.process.send_signal(signal.SIGCONT)

    line = line_of(up, job.id)
    assert f"batch: tasks.create_message[{job.id}] goes to the dead letters: its worker died or hung 5 times" in line


def test_a_cancelled_job_is_no_warning(up):
    """Somebody wanted that."""
    up.api.control(latency=5.0)
    job = send(up, None)
    wait_until(lambda: up.api.summary()["in_flight"], "the call")
    up.client.cancel(job)
    other = send(up, "401")
    line_of(up, other.id)
    assert not lines_of(up, job.id)


def test_a_lost_lease_names_its_job(up):
    """Its result will be another worker's, or nobody's."""
    up.api.control(latency=6.0)
    job = send(up, None)
    redis = redis_client(up.app)
    wait_until(lambda: ids_in(redis, "leases") == [job.id] and up.api.summary()["in_flight"], "the call alone")
    other = ScriptClient(redis)
    swept: list[Held] = []
    wait_until(lambda: swept or swept.extend(other.claim(lease_ms=1)), "another worker has it")
    assert f"critical: tasks.create_message[{job.id}]: its lease expired" in line_of(up, job.id)
    assert [held.tag for held in swept] == [job.id]
    assert other.ack(swept[0]) == 1


def test_a_flood_is_counted(up):
    """Of hundreds of failed jobs 50 have a line within 10 s, and one line has the number of the others."""
    jobs = [send(up, "404", "normal") for _ in range(130)]
    line_of(up, "80 more within 10 s: normal: jobs failed (ApiError 404)")
    assert len(lines_of(up, "normal: tasks.create_message[", "404")) == 50
    for job in jobs:
        wait_until(lambda job=job: up.app.AsyncResult(job.id).state == "FAILURE", "each to fail all the same")


def test_a_bounded_log_counts_what_it_does_not_write():
    """A thousand lines of one kind become three, and the next window begins anew."""
    written: list[str] = []
    log = BoundedLog(written.append, most=2, window=0.1)
    for number in range(1_000):
        log.say("calls refused", f"line {number}")
    log.say("something else", "another kind")
    wait_until(lambda: len(written) == 4, "the count")
    log.say("calls refused", "later")

    assert written == ["line 0", "line 1", "another kind", "998 more within 0 s: calls refused", "later"]


def test_no_line_shows_a_prompt(up):
    """Whatever was said in the tests above."""
    assert SAID not in up.worker.output()
    assert re.search(r"WARNING", up.worker.output())


def test_a_worker_that_stops_takes_its_sign_away(up, tmp_path):
    """Whoever asks from then on is told at once that nobody serves the lane."""
    redis = redis_client(up.app)
    with worker(tmp_path, "-Q", "batch", "-c", "1", "-n", "other@%h", **up.env) as other:
        wait_until(lambda: redis.zcard("lanes:workers:batch") == 2, "the second worker's sign")
        assert redis.zcard("lanes:workers:critical") == 1
        other.stop()
    assert redis.zcard("lanes:workers:batch") == 1

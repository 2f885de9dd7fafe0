"""What a worker does before its first job: settle what it needs, refuse what would break the lanes."""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest
from kit.worker import worker
from pydantic import SecretStr

from celery_app import LANES, create_app
from celery_app.settings import Settings
from demo.simulator import Behaviour, running
from tasks import create_message

#: Seconds for a worker that is to refuse: importing Celery and the SDK on a busy machine.
REFUSAL_DEADLINE = 60.0


@pytest.fixture(scope="module")
def api():
    """A simulated API that accepts one key."""
    with running(Behaviour(latency=0.0), keys=["good"]) as server:
        yield server


def refusal(tmp_path: Path, *arguments: str, **env: str) -> str:
    """Start a worker that is to refuse, and return its last words: one line, on a failure's exit code."""
    with worker(tmp_path, *arguments, ready=False, **env) as refusing:
        assert refusing.process.wait(REFUSAL_DEADLINE) == 1, refusing.output()
    assert "Traceback" not in refusing.output()
    return refusing.output().strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("-P", "gevent"), "gevent is not supported"),
        (("--autoscale", "8,2"), "--autoscale"),
        (("--time-limit", "30"), "time limits"),
        (("--soft-time-limit", "30"), "time limits"),
        (("--prefetch-multiplier", "4"), "prefetch"),
        (("-Q", "critcal"), "did you mean 'critical'"),
    ],
)
def test_what_would_break_the_lanes_is_refused_with_the_reason(tmp_path, broker_url, api, arguments, reason):
    """An operator reads one line that says what is wrong, and not later that jobs were lost."""
    env = {"CELERY_BROKER_URL": broker_url, "EZAI_API_KEY": "good", "EZAI_BASE_URL": api.url}

    assert reason in refusal(tmp_path, *arguments, **env)


def test_a_worker_without_a_key_is_refused(tmp_path, broker_url):
    """Its jobs would all fail."""
    assert "set EZAI_API_KEY" in refusal(tmp_path, CELERY_BROKER_URL=broker_url)


def test_a_worker_with_a_wrong_key_is_refused(tmp_path, broker_url, api):
    """The API is asked once, at the start, and the key is not repeated."""
    env = {"CELERY_BROKER_URL": broker_url, "EZAI_API_KEY": "wrong-secret", "EZAI_BASE_URL": api.url}
    line = refusal(tmp_path, **env)

    assert "refused the key (401)" in line
    assert "wrong-secret" not in line


def test_a_wrong_environment_is_one_line(tmp_path):
    """Every problem is named, in one line."""
    line = refusal(tmp_path, CELERY_BROKER_URL="amqp://localhost", LANES_BATCH_FLOOR="2")

    assert "CELERY_BROKER_URL" in line
    assert "LANES_BATCH_FLOOR" in line


def test_a_plain_worker_is_right_without_flags(tmp_path, broker_url, api):
    """Threads, one job fetched per slot, a connection for each slot: -Q and -c are all an operator says."""
    env = {"CELERY_BROKER_URL": broker_url, "EZAI_API_KEY": "good", "EZAI_BASE_URL": api.url}
    app = create_app(Settings(broker_url=broker_url, result_backend=broker_url))
    with worker(tmp_path, "-Q", "critical", "-n", "critical@%h", "-c", "17", **env):
        stats = next(iter(app.control.inspect(timeout=1.5).stats().values()))
        queues = next(iter(app.control.inspect(timeout=1.5).active_queues().values()))
    app.close()

    assert stats["pool"]["implementation"] == "celery.concurrency.thread:TaskPool"
    assert stats["prefetch_count"] == stats["pool"]["max-concurrency"] == 17
    assert stats["broker"]["transport_options"]["max_connections"] > 17
    assert [queue["name"] for queue in queues] == ["critical"]


def test_the_first_job_is_as_fast_as_the_next(tmp_path, broker_url, api):
    """The SDK is imported, its client built and its connections open before a worker takes a job.

    The bound is generous: what is ruled out is the second that the import alone takes.
    """
    env = {"CELERY_BROKER_URL": broker_url, "EZAI_API_KEY": "good", "EZAI_BASE_URL": api.url}
    keys = {lane.name: SecretStr("unused") for lane in LANES}
    app = create_app(Settings(broker_url=broker_url, result_backend=broker_url, api_keys=keys))
    kwargs = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}

    def seconds() -> float:
        start = time.perf_counter()
        app.tasks[create_message.name].apply_async(kwargs=kwargs, queue="critical").get(timeout=30)
        return time.perf_counter() - start

    with worker(tmp_path, "-Q", "critical", **env):
        app.control.ping(timeout=0.5)  # opens this process's own connections
        first, *others = [seconds() for _ in range(20)]
    app.close()

    assert first < median(others) + 0.3


def test_importing_the_packages_costs_a_web_process_little():
    """Neither the SDK nor Redis' client comes along, and all that comes takes less than half of what the SDK takes."""
    script = (
        "import sys, time; start = time.perf_counter(); import celery_app, tasks; took = time.perf_counter() - start\n"
        "unwanted = [name for name in ('anthropic', 'httpx2', 'flower', 'redis') if name in sys.modules]\n"
        "start = time.perf_counter(); import anthropic; print(took / (time.perf_counter() - start), *unwanted)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in range(3)
    ]
    ratios, unwanted = zip(*((run.stdout.split()[0], run.stdout.split()[1:]) for run in runs), strict=True)

    assert unwanted == ([], [], [])
    assert min(map(float, ratios)) < 0.5

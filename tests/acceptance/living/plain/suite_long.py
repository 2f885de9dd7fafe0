"""What the shop relies on and that takes its time: kills, order under priorities, beat, many at once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from processes_of_celery import JOB_DEADLINE, Process, command, process, stats, until

HERE = Path(__file__).parent

#: Seconds after which the shop's broker gives a killed worker's late job to another one (its visibility timeout and
#: the time between two looks), and some more.
TO_COME_BACK = 6.0


def worker(folder: Path, name: str, *arguments: str) -> Any:
    """Run a worker until the block ends."""
    options = ("worker", "-n", f"{name}@shop", "-l", "INFO", *arguments)
    return process("shop", *options, log=folder / f"{name}.log", cwd=HERE, ready="ready.")


def killed_while(folder: Path, name: str, queue: str, event_log: Path, line: str) -> None:
    """Run a worker, and kill it and its children once the line is in the event log."""
    arguments = ("worker", "-n", f"{name}@shop", "-Q", queue, "-c", "1", "-l", "INFO")
    running = Process("shop", *arguments, log=folder / f"{name}.log", cwd=HERE)
    try:
        until(lambda: line in event_log.read_text(), line)
    finally:
        running.kill()


def test_a_card_is_charged_once(shop: Any, folder: Path, event_log: Path) -> None:
    """A task that is acknowledged early does not run again after its worker was killed; one acknowledged late does."""
    from shop.tasks import charge, remember, remember_late

    charge.apply_async(("visa", 60), queue="cards")
    killed_while(folder, "first", "cards", event_log, "charged visa")
    remember_late.apply_async(("late", 2.0), queue="cards")
    killed_while(folder, "second", "cards", event_log, "late")
    time.sleep(TO_COME_BACK)  # long enough for a charge that comes back, if it did
    with worker(folder, "third", "-Q", "cards", "-c", "2"):
        until(lambda: event_log.read_text().count("late") == 2, "the late one comes back")
        remember.apply_async(("the end",), queue="cards")
        until(lambda: "the end" in event_log.read_text(), "the end")
        assert event_log.read_text().count("charged visa") == 1


def test_priorities_order_a_queue(shop: Any, folder: Path, event_log: Path) -> None:
    """The shop's own priorities: 0 first, and first in, first out within one."""
    from shop.tasks import remember

    for n, priority in enumerate([9, 3, 6, 0, 3, 9]):
        remember.apply_async((f"{priority} {n}",), queue="ranked", priority=priority)
    with worker(folder, "ranked", "-Q", "ranked", "-c", "1", "--prefetch-multiplier", "1"):
        until(lambda: len(event_log.read_text().splitlines()) == 6, "six jobs")
    assert event_log.read_text().splitlines() == ["0 3", "3 1", "3 4", "6 2", "9 0", "9 5"]


def test_beat_ticks(shop: Any, folder: Path, event_log: Path, main_worker: Process) -> None:
    """What the schedule names is sent again and again."""
    arguments = ("beat", "-s", str(folder / "schedule"), "-l", "INFO", "--pidfile=")
    with process("shop", *arguments, log=folder / "beat.log", cwd=HERE, ready="Sending due task"):
        until(lambda: event_log.read_text().count("tick") >= 3, "three ticks")


def test_beat_inside_a_worker(shop: Any, folder: Path, event_log: Path) -> None:
    """`worker -B`, as small projects have it."""
    with worker(folder, "withbeat", "-B", "-s", str(folder / "embedded"), "-Q", "celery"):
        until(lambda: event_log.read_text().count("tick") >= 2, "two ticks")


@pytest.mark.parametrize("pool", ["gevent", "threads", "solo", "prefork"])
def test_every_pool_of_celery(shop: Any, folder: Path, pool: str) -> None:
    """`-P` is what it says, with Celery's prefetch for it; gevent does 20 at once."""
    from shop.tasks import asleep

    concurrency = 1 if pool == "solo" else 20 if pool == "gevent" else 2
    with worker(folder, pool, "-Q", "io", "-P", pool, "-c", str(concurrency)):
        told = stats(shop, f"{pool}@shop")
        assert {"threads": "thread"}.get(pool, pool) in told["pool"]["implementation"]
        assert told["prefetch_count"] == concurrency * 4
        start = time.monotonic()
        sent = [asleep.apply_async((1.0,), queue="io") for _ in range(concurrency)]
        assert [each.get(JOB_DEADLINE) for each in sent] == ["awake"] * concurrency
        assert time.monotonic() - start < 15


def test_autoscale_and_limits_of_a_worker(shop: Any, folder: Path) -> None:
    """`--autoscale`, `--time-limit`, `--max-tasks-per-child`, `--prefetch-multiplier`: as given."""
    options = ("--autoscale=3,1", "--time-limit=30", "--soft-time-limit=20", "--max-tasks-per-child=5")
    with worker(folder, "scaled", "-Q", "io", "-P", "prefork", *options, "--prefetch-multiplier=2") as running:
        told = stats(shop, "scaled@shop")
        assert list(told["pool"]["timeouts"]) == [20.0, 30.0]
        assert told["pool"]["max-tasks-per-child"] == 5
        assert told["autoscaler"]["max"] == 3
        assert "prefork" in told["pool"]["implementation"]
        assert "threads" not in running.text


def test_an_early_job_that_was_not_begun_comes_back(shop: Any, folder: Path, event_log: Path) -> None:
    """A worker that is stopped puts back what it had fetched and not begun."""
    from shop.tasks import remember

    for n in range(6):
        remember.apply_async((f"job {n}", 1.5), queue="io")
    with worker(folder, "stopped", "-Q", "io", "-c", "1"):
        until(lambda: "job 0" in event_log.read_text(), "the first")
    with worker(folder, "goes_on", "-Q", "io", "-c", "4"):
        until(lambda: len(set(event_log.read_text().splitlines())) == 6, "all six")
    assert len(event_log.read_text().splitlines()) == 6


def test_a_terminated_job_ends(shop: Any, folder: Path, event_log: Path) -> None:
    """`revoke(terminate=True)` ends a job that runs in a prefork worker."""
    from celery.exceptions import TaskRevokedError
    from shop.tasks import remember

    with worker(folder, "killer", "-Q", "io", "-c", "1"):
        sent = remember.apply_async(("runs", 60), queue="io")
        until(lambda: "runs" in event_log.read_text(), "it runs")
        sent.revoke(terminate=True)
        with pytest.raises(TaskRevokedError):
            sent.get(JOB_DEADLINE)


def test_a_worker_without_a_queue_serves_the_shops(shop: Any, folder: Path) -> None:
    """Without `-Q` a worker serves what `task_queues` names, and nothing else."""
    from shop import settings

    with worker(folder, "all", "-c", "1"):
        queues = until(lambda: shop.control.inspect(["all@shop"], timeout=2).active_queues(), "queues")
    assert {queue["name"] for queue in queues["all@shop"]} == {queue.name for queue in settings.task_queues}


def test_a_worker_that_leaves_queues_out(shop: Any, folder: Path) -> None:
    """`-X` means all of the shop's queues but these."""
    from shop import settings

    with worker(folder, "most", "-c", "1", "-X", "emails,media"):
        queues = until(lambda: shop.control.inspect(["most@shop"], timeout=2).active_queues(), "queues")
    wanted = {queue.name for queue in settings.task_queues} - {"emails", "media"}
    assert {queue["name"] for queue in queues["most@shop"]} == wanted


def test_purge_names_the_shops_queues_and_no_other(shop: Any) -> None:
    """`celery purge` without `-Q` empties the queues that the shop declared."""
    from shop import settings
    from shop.tasks import add

    command("shop", "purge", "-f", cwd=HERE)
    add.apply_async((1, 1), queue="cards")
    said = command("shop", "purge", "-f", cwd=HERE)
    assert f"Purged 1 message from {len(settings.task_queues)} known task queues" in said


def test_the_known_queues_are_the_shops(shop: Any) -> None:
    """Whoever walks through `app.amqp.queues`, as monitoring does, finds what the shop declared."""
    from shop import settings

    known = "from shop.celery import app; print(*sorted(app.amqp.queues))"
    said = subprocess.run([sys.executable, "-c", known], cwd=HERE, capture_output=True, text=True, check=True).stdout
    assert said.split() == sorted(queue.name for queue in settings.task_queues)

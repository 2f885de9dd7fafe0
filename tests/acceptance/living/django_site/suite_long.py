"""What the site relies on and that takes its time: a kill, a redeploy, a worker on other pools."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from processes_of_celery import JOB_DEADLINE, Process, process, stats, until

HERE = Path(__file__).parent


def test_a_card_is_charged_once(site: Any, folder: Path) -> None:
    """`CELERY_TASK_ACKS_LATE = False`: a killed worker's job is not done again by the next one."""
    from orders.tasks import bill

    book = folder / "book"
    book.touch()
    options = ("-Q", "billing", "-c", "1", "-l", "INFO")
    killed = Process("mysite", "worker", "-n", "first@site", *options, log=folder / "first.log", cwd=HERE)
    try:
        bill.delay(1, str(book))
        until(book.read_text, "the charge")
    finally:
        killed.kill()
    arguments = ("worker", "-n", "second@site", *options)
    with process("mysite", *arguments, log=folder / "second.log", cwd=HERE, ready="ready."):
        # Longer than a lane's lease: a job under one would be back by now.
        time.sleep(25)
        bill.delay(2, str(book))
        until(lambda: "2" in book.read_text(), "the second")
        assert book.read_text().split() == ["1", "2"]


def test_a_warm_shutdown_finishes_its_job(site: Any, folder: Path) -> None:
    """A redeploy: SIGTERM lets the job in hand end, and the next worker goes on with the others."""
    from orders.tasks import bill

    book = folder / "redeploy"
    book.touch()
    for order in range(4):
        bill.delay(order, str(book))
    options = ("-Q", "billing", "-c", "1", "-l", "INFO")
    for name in ("old", "new"):
        arguments = ("worker", "-n", f"{name}@site", *options)
        with process("mysite", *arguments, log=folder / f"{name}.log", cwd=HERE, ready="ready."):
            wanted = 1 if name == "old" else 4
            until(lambda wanted=wanted: len(book.read_text().split()) >= wanted, f"{wanted} jobs")
    assert sorted(book.read_text().split()) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("pool", ["gevent", "threads", "solo"])
def test_other_pools(site: Any, folder: Path, pool: str) -> None:
    """`-P` is what it says; the site's time limits do not stop a worker that cannot keep them."""
    from orders.tasks import mail_count

    arguments = ("worker", "-Q", "emails", "-n", f"{pool}@site", "-P", pool, "-c", "2", "-l", "INFO")
    with process("mysite", *arguments, log=folder / f"{pool}.log", cwd=HERE, ready="ready."):
        assert {"threads": "thread"}.get(pool, pool) in stats(site, f"{pool}@site")["pool"]["implementation"]
        if pool != "gevent":  # Django's own connections want to be told of greenlets first
            assert isinstance(mail_count.delay().get(JOB_DEADLINE), int)

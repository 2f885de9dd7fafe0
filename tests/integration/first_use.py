"""Fifty threads that begin a process: run with a way to send as the argument; prints what failed."""

import sys
import threading
from collections import Counter
from typing import Any

from celery.result import AsyncResult

import celery_app
from tasks import create_message

THREADS = 50

PARAMS: Any = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}


def submit() -> None:
    """Submit and look at the state, as a view does."""
    celery_app.submit(lane="batch", **PARAMS).state  # noqa: B018 - it asks the result backend


def stream() -> None:
    """Open a stream, and a state."""
    AsyncResult(celery_app.stream(lane="critical", **PARAMS).task_id).state  # noqa: B018 - likewise


def apply() -> None:
    """Submit the task itself."""
    create_message.apply_async(kwargs=PARAMS, queue="normal").state  # noqa: B018 - likewise


def ask() -> None:
    """Wait for an answer that nobody gives: the lane's deadline ends it."""
    try:
        celery_app.ask(lane="critical", **PARAMS)
    except celery_app.errors.DeadlineExceeded:
        return


def main() -> None:
    """Start all threads at once."""
    send, gate, failures = globals()[sys.argv[1]], threading.Barrier(THREADS), Counter[str]()

    def run() -> None:
        gate.wait()
        try:
            send()
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is what is looked for
            failures[f"{type(exc).__name__}: {exc}"] += 1

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(dict(failures) or "none failed")  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main()

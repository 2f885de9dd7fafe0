"""A web app's mixed traffic: ``python -m soaking.traffic --rate 10`` prints a line of JSON for whatever it does.

A line has the time, what was done, the number of the job (which the API is told, too), and its id. SIGTERM ends the
sending; what is read by then is read to its end.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from celery import chord
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from soaking.project import MODEL, app, joined, own

from celery_app.client import Client
from celery_app.errors import LanesError, MaybeQueued
from tasks import create_message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

THREADS, TENANTS, LANES = 16, ("acme", "bolt", "crux", None), ("normal", "batch")

#: Calls of a batch and parts of a chord, at least and at most.
MANY, PARTS = (20, 60), (2, 5)

#: The event after which who leaves leaves, and who comes back has gone.
LEFT_AT = 4

#: Seconds: between two events of a slow reader, and until somebody changes his mind.
SLOW, MIND = 0.3, (0.0, 3.0)

#: A long prompt has a key of its own in the broker.
LONG_ONE_IN, LONG = 20, 20_000

client, numbers, speaking = Client(app), count(1), threading.Lock()


def note(what: str, job: str, **more: Any) -> None:
    """Print a line."""
    with speaking:
        print(json.dumps({"at": time.time(), "what": what, "job": job, **more}), flush=True)


def number(kind: str) -> str:
    """Return a number that no other job has."""
    return f"{kind}-{next(numbers)}"


def params(job: str) -> dict[str, Any]:
    """Return a call, which the API knows by its number."""
    text = "word " * (LONG if random.randrange(LONG_ONE_IN) == 0 else 20)
    return {
        "model": MODEL,
        "max_tokens": 40,
        "messages": [{"role": "user", "content": f"{job}: {text}"}],
        "metadata": {"user_id": job},
    }


def sent(jobs: list[str], send: Callable[[], Any], ids: Callable[[Any], Sequence[str]]) -> Any:
    """Send jobs and note the id of each; what an error leaves is refused, or in doubt, and None is returned."""
    try:
        result = send()
    except (LanesError, RedisError, OperationalError) as exc:
        batch_id = getattr(exc, "batch_id", None)
        known = [f"{batch_id}-{index}" for index in range(len(jobs))] if batch_id else jobs
        # Celery's own ways of sending a workflow say nothing of the parts that were sent before.
        doubt = batch_id or len(jobs) > 1 or not isinstance(exc, LanesError) or isinstance(exc, MaybeQueued)
        for job, task_id in zip(jobs, known, strict=True):
            note("doubt" if doubt else "refused", job, id=task_id, why=type(exc).__name__)
        return None
    for job, task_id in zip(jobs, ids(result), strict=True):
        note("sent", job, id=task_id)
    return result


def one(job: str, send: Callable[[], Any]) -> Any:
    """Send one job."""
    return sent([job], send, lambda result: [getattr(result, "task_id", None) or result.id])


def call() -> None:
    """Submit a call; some are for later."""
    job, options = number("call"), {"countdown": 3} if random.random() < 0.2 else {}
    options |= {"queue": random.choice(LANES), "tenant": random.choice(TENANTS), "task_id": job}
    one(job, lambda: create_message.apply_async(kwargs=params(job), **options))


def ask() -> None:
    """Wait for an answer; the id is nobody's business here, the answer is."""
    job = number("ask")
    try:
        client.ask(tenant=random.choice(TENANTS), **params(job))
        note("answered", job)
    except LanesError as exc:
        note("failed", job, why=type(exc).__name__)


def stream() -> None:
    """Read a stream: at once, slowly, in two parts, or leave in the middle, which cancels it."""
    how = random.choice(("all", "slowly", "twice", "leave"))
    job, lane = number(f"stream_{how}"), random.choice(("critical", "normal"))
    events = one(job, lambda: client.stream(lane, cancel_on_close=how == "leave", **params(job)))
    if events is not None:
        try:
            note("read", job, how=_read(how, events))
        except LanesError as exc:
            note("read", job, how=type(exc).__name__)


def _read(how: str, events: Any) -> str:
    text = ""
    for seen, event in enumerate(events):
        text = "" if event["type"] == "restart" else text + event.get("delta", {}).get("text", "")
        if event["type"] == "error":
            return str(event["error"]["type"])
        if seen == LEFT_AT and how == "leave":
            events.close()
            return "left"
        if seen == LEFT_AT and how == "twice":
            more = client.stream_from(events.task_id, events.last_event_id)
            return _read("the rest", more)
        if how == "slowly":
            time.sleep(SLOW)
    # Who began in the middle has the text from there on, or all of it if the answer began anew.
    whole = events.message["content"][-1]["text"]
    return "whole" if (whole.endswith(text) if how == "the rest" else whole == text) else "torn"


def many() -> None:
    """Submit many calls at once; one batch in five is cancelled."""
    jobs = [number("many") for _ in range(random.randint(*MANY))]
    send = lambda: client.submit_many(map(params, jobs), tenant=random.choice(TENANTS), wait=30.0)  # noqa: E731
    batch = sent(jobs, send, lambda batch: [f"{batch.id}-{index}" for index in range(len(jobs))])
    if batch is not None and random.random() < 0.2:
        time.sleep(random.uniform(*MIND))
        with suppress(LanesError):
            batch.cancel()


def parts() -> None:
    """Send a chord of calls; its end comes when all have been made."""
    jobs, end = [number("part") for _ in range(random.randint(*PARTS))], number("joined")
    calls = [create_message.si(**params(job)).set(queue="batch", task_id=job) for job in jobs]
    send = chord(calls, joined.s().set(queue="normal", task_id=end)).delay
    sent([*jobs, end], send, lambda _: [*jobs, end])


def admit() -> None:
    """Send a job that makes its call itself."""
    job, lane = number("own"), random.choice(LANES)
    one(job, lambda: own.apply_async((job, "word " * 20), queue=lane, task_id=job))


def cancel() -> None:
    """Submit a call and change one's mind."""
    job = number("cancel")
    result = one(job, lambda: client.submit(random.choice(LANES), **params(job)))
    if result is not None:
        time.sleep(random.uniform(*MIND))
        with suppress(LanesError):
            note("cancelled", job, won=client.cancel(result))


#: How often each is done, and of how many jobs it consists in the mean.
KINDS: dict[Callable[[], None], tuple[int, float]] = {
    call: (30, 1),
    ask: (20, 1),
    stream: (20, 1),
    admit: (15, 1),
    cancel: (10, 1),
    parts: (4, 4.5),
    many: (1, 40),
}


def guarded(kind: Callable[[], None]) -> None:
    """Do something; what is no error of the lanes is a finding."""
    try:
        kind()
    except Exception as exc:  # noqa: BLE001
        note("surprise", kind.__name__, why=f"{type(exc).__name__}: {exc}"[:300])


def main() -> None:
    """Send until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=10.0, help="jobs per second")
    rate, stopped = parser.parse_args().rate, threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    often = [times for times, _ in KINDS.values()]
    jobs = sum(times * size for times, size in KINDS.values()) / sum(often)
    at_once = threading.Semaphore(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        while not stopped.wait(random.expovariate(rate / jobs)):
            if at_once.acquire(timeout=1.0):
                done = pool.submit(guarded, random.choices([*KINDS], often)[0])
                done.add_done_callback(lambda _: at_once.release())


if __name__ == "__main__":
    main()

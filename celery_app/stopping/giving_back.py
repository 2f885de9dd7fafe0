"""The running jobs of a worker go back to their places at once, with the attempts that they had.

A call is hung up on, and its slot returns its job. A slot that is about something else cannot be interrupted if it is
a thread: its job is taken from it, and the process ends without waiting for it.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from celery.worker import state

from celery_app.broker.claims import claim_of, is_delivery, queue_of
from celery_app.broker.holders import holder_of
from celery_app.broker.rules import LANE_NAMES
from celery_app.stopping import told

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

#: Seconds that slots have to return their jobs by themselves: milliseconds for a call, and a chance for what is nearly
#: done. Short, since whoever tells a worker twice is about to kill it.
RETURN_WITHIN = 1.0

#: Seconds that all of this may take where no job but the lanes' runs: a child, a server or a lock may never answer.
END_WITHIN = 10.0

_LOOK_EVERY = 0.02


def give_back(worker: Any) -> bool:
    """Return all jobs of lanes that a worker has, once slots have nothing to do but lanes' jobs.

    Returns:
        Whether slots are still at work, for nothing: their jobs have been taken from them.
    """
    told.give_back()
    requests = lane_requests()
    if has_processes(worker.pool):
        for request in requests:
            request.cancel(worker.pool, emit_retry=False)
    _wait_for(lambda: not any(map(_is_held, requests)), RETURN_WITHIN)
    for request in requests:
        _take_from_slot(request)
    # Only now: the main thread may hold a log handler's lock, and waits for the slots.
    logger.warning("shutdown at once: jobs of lanes that ran here are back at their places: %d", len(requests))
    _wait_for(_only_lanes, float("inf"))
    return bool(lane_requests())


def lane_requests() -> list[Any]:
    """Return the jobs of lanes that the slots of this process have."""
    return [request for request in _all_of(state.reserved_requests) if _is_in_lane(request)]


def has_processes(pool: Any) -> bool:
    """Say whether a pool has processes, which can be interrupted."""
    return type(pool).__module__.endswith("prefork")


def end_process() -> None:
    """End this process though threads of it are at work: do what is to be done at its end, and nothing else."""
    atexit._run_exitfuncs()  # noqa: SLF001 - sys.exit would wait for all slots first
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()  # Celery's last words
    os._exit(os.EX_OK)


def end_anyway(is_over: Callable[[], bool]) -> None:
    """End this process once it has had no jobs but lanes' for so long, unless its worker stops by itself.

    Nothing here takes a lock, or asks a server.
    """
    give_up_at = time.monotonic() + END_WITHIN
    while time.monotonic() < give_up_at:
        time.sleep(_LOOK_EVERY)
        if is_over():
            return
        if not _only_lanes():
            give_up_at = time.monotonic() + END_WITHIN
    os._exit(os.EX_OK)


def _is_in_lane(request: Any) -> bool:
    message = request.message
    return queue_of(message.properties, message.delivery_info) in LANE_NAMES and is_delivery(message.delivery_tag)


def _only_lanes() -> bool:
    return all(map(_is_in_lane, _all_of(state.active_requests)))


def _all_of(requests: Any) -> tuple[Any, ...]:
    while True:
        try:
            return tuple(requests)
        except RuntimeError:  # a slot has begun or ended one meanwhile
            continue


def _is_held(request: Any) -> bool:
    return holder_of(claim_of(request.message.delivery_tag)[0]) is not None


def _take_from_slot(request: Any) -> None:
    claim = claim_of(request.message.delivery_tag)
    leases = holder_of(claim[0])
    if leases is not None:
        leases.requeue_all([claim])


def _wait_for(condition: Any, seconds: float) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition() and time.monotonic() < give_up_at:
        time.sleep(_LOOK_EVERY)

"""The jobs a process holds, and the thread that keeps their leases alive."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import redis

from celery_app.away import say_away
from celery_app.bounded_log import BoundedLog
from celery_app.broker.dead_letters import job_in_hand
from celery_app.scheduler.verbs import ACK, BURY, EXTEND, REQUEUE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery_app.script import Script

logger = logging.getLogger(__name__)

#: Seconds that a claim lasts without a sign of life. Short, because a person waits for a critical job; long against
#: the pauses of a busy process, because a lease that expires early has the job done twice.
LEASE = 15.0

#: Seconds between two signs of life, and between two sweeps for what others abandoned: five may fail before a lease
#: expires, and a killed worker's jobs are back after at most LEASE + EXTEND_EVERY = 18 s.
EXTEND_EVERY = 3.0

#: Seconds between two tries to settle what could not be settled.
RETRY_EVERY = 0.5

#: Seconds that this process leaves other workers' leases alone after it lost the broker: they lost it, too, and their
#: leases look expired until each of them has said that it is alive.
GRACE = 2 * EXTEND_EVERY

#: Lines within 10 s about claims that the broker refuses to end; each is tried again twice a second.
MOST_REFUSALS = 1

_refusals = BoundedLog(logger.warning, MOST_REFUSALS)

#: What a broker that restarts, fails over or is full may answer for a while.
TRANSIENT = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError, OSError)


class Leases:
    """What this process holds, whichever connection it came through.

    A connection may be lost and replaced while its jobs go on; they are settled, returned and kept alive here, with
    connections of their own.
    """

    def __init__(self, client: redis.Redis, prefix: str, *, repeats: bool = True) -> None:
        """Hold nothing yet; the thread starts with the first job.

        Args:
            client: without a key prefix of its own.
            prefix: of all keys.
            repeats: whether what the broker could not do is repeated later, or raised.
        """
        self.client = client
        self._prefix = prefix
        self._repeats = repeats
        #: Begins each token of a claim: all that one process holds is lost at once.
        self.process = uuid.uuid4().hex
        self._held: dict[str, str] = {}
        self._suspects: set[str] = set()
        self._unsettled: dict[tuple[str, str], tuple[Script, tuple[Any, ...]]] = {}
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._thread: threading.Thread | None = None
        self._trusted_from = 0.0
        self._stopping = False

    @property
    def has_suspect(self) -> bool:
        """Whether one of the jobs was in hand when other processes died; no process gets two of them at a time."""
        return bool(self._suspects)

    def hold(self, tag: str, token: str, *, suspect: bool = False) -> None:
        """Keep the lease of a claimed job, or of a call, alive from now on."""
        with self._lock:
            self._held[tag] = token
            if suspect:
                self._suspects.add(tag)
            self._busy.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_alive, name="lanes-leases", daemon=True)
                self._thread.start()

    def ack(self, tag: str, token: str) -> bool:
        """End a job that is done."""
        return self._let_go(tag, token, ACK, (self._prefix, tag, token))

    def requeue(
        self,
        tag: str,
        token: str,
        *,
        delay: float = 0.0,
        retries: int = -1,
        went_wrong: bool = False,
        to_back: bool = False,
        facts: Mapping[str, str | float] | None = None,
    ) -> bool:
        """Return a job to its place in its line.

        Args:
            tag: the job's id.
            token: of its claim.
            delay: seconds before which it must not start again.
            retries: how often it has been tried; -1: as the job says.
            went_wrong: it is one step nearer to being buried.
            to_back: it goes behind all others instead, as kombu has it for queues that are no lanes.
            facts: what else is to be known of it from now on, by the names in ``scheduler/scripts/lib/jobs.lua``.

        Returns:
            Whether the job was still held; if not, it is elsewhere, and nothing has been done.
        """
        options = (max(0, round(delay * 1000)), retries, int(went_wrong), int(to_back))
        noted = (part for fact in (facts or {}).items() for part in fact)
        return self._let_go(tag, token, REQUEUE, (self._prefix, tag, token, *options, *noted))

    def bury(self, tag: str, token: str, reason: str, retries: int = -1) -> bool:
        """Put a job among the dead letters; arguments and result as with `requeue`."""
        return self._let_go(tag, token, BURY, (self._prefix, tag, token, reason, retries))

    def sweep_after(self) -> float:
        """Return the age in seconds from which other workers' leases count as expired; 0: leave them alone."""
        return LEASE if time.monotonic() >= self._trusted_from else 0.0

    def broker_was_lost(self) -> None:
        """Give other workers time to say that they are alive."""
        self._trusted_from = time.monotonic() + GRACE

    def requeue_all(self, claims: Iterable[tuple[str, str]]) -> None:
        """Return what is still held of these jobs, by tag and token, at once."""
        for tag, token in claims:
            # What waits to be settled is done.
            if self._held.get(tag) == token and (tag, token) not in self._unsettled:
                self.requeue(tag, token)

    def close(self) -> None:
        """Return all that is held and stop the thread; for the end of the process."""
        self._stopping = True
        self._busy.set()
        self._survives(self._repeat)
        self.requeue_all(list(self._held.items()))

    def holds(self, tag: str) -> bool:
        """Say whether a job is held by this process."""
        return tag in self._held

    def _let_go(self, tag: str, token: str, script: Script, arguments: tuple[Any, ...]) -> bool:
        """Run a script that ends a claim; where the broker is away, have the thread repeat it until it stands.

        Repeating is safe: a token is good for one claim.

        Returns:
            Whether the job was still held, as far as is known.
        """
        was_held = self._forget(tag, token)
        try:
            return bool(script.run(self.client, (), arguments))
        except TRANSIENT as exc:
            if not self._repeats:
                raise
            say_away(f"{script.name} of a job has to wait for the broker", exc)
            self.broker_was_lost()
            with self._lock:
                self._unsettled[tag, token] = (script, arguments)
                if was_held:
                    self._held.setdefault(tag, token)  # its lease has to last until this stands
            self._busy.set()
            return True
        finally:
            self._rest_if_idle()

    def _forget(self, tag: str, token: str) -> bool:
        """Keep a claim's lease alive no longer, but that of a later claim of the same job; return whether it was."""
        with self._lock:
            if self._held.get(tag) != token:
                return False
            del self._held[tag]
            self._suspects.discard(tag)
            return True

    def _rest_if_idle(self) -> None:
        with self._lock:
            if not self._held and not self._unsettled:
                self._busy.clear()

    def _keep_alive(self) -> None:
        extended = 0.0
        while not self._stopping:
            self._busy.wait()
            for step, due in ((self._repeat, True), (self._extend, time.monotonic() - extended >= EXTEND_EVERY)):
                if due and self._survives(step) and step == self._extend:
                    extended = time.monotonic()
            time.sleep(RETRY_EVERY)

    def _survives(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except Exception as exc:  # noqa: BLE001
            # Whatever it was: nobody starts this thread again, and without it the process loses all that it holds. One
            # that is no RedisError comes from redis-py when a pool is closed while a connection is in use.
            say_away("the broker is away, leases and acknowledgements wait for it", exc)
            self.broker_was_lost()
            return False
        return True

    def _repeat(self) -> None:
        """Try again what is not settled yet: each entry for itself, one that is refused holds up none behind it."""
        for (tag, token), (script, arguments) in list(self._unsettled.items()):
            try:
                script.run(self.client, (), arguments)
            except redis.ResponseError as exc:
                # No sign that the broker is away: `_extend` would hear so, too.
                _refusals.say(f"the broker refuses to end claims ({script.name})", f"{script.name} of a job: {exc}")
                continue
            with self._lock:
                self._unsettled.pop((tag, token), None)
            self._forget(tag, token)
        self._rest_if_idle()

    def _extend(self) -> None:
        with self._lock:
            held = dict(self._held)
        pairs = [part for pair in held.items() for part in pair]
        sweep_after = round(self.sweep_after() * 1000)
        for name in EXTEND.run(self.client, (), (self._prefix, sweep_after, *pairs)):
            self._lost(name.decode(), held[name.decode()])

    def _lost(self, tag: str, token: str) -> None:
        """A lease expired: another worker has the job now, and acknowledging it here would mean nothing."""
        if not self._forget(tag, token):
            return  # settled meanwhile
        logger.warning("%s: its lease expired while it was running here; it is run elsewhere, too", job_in_hand(tag))


_process_leases: dict[tuple[Any, ...], Leases] = {}
_opening = threading.Lock()


def leases_for(key: tuple[Any, ...], make: Callable[[], Leases]) -> Leases:
    """Return this process's leases at one broker, making them on the first call."""
    with _opening:
        if key not in _process_leases:
            _process_leases[key] = make()
        return _process_leases[key]


def call_leases(prefix: str, client: redis.Redis) -> Leases:
    """Return this process's leases of calls that are made without a job: in a web process, or eagerly."""
    return leases_for(("calls", prefix, id(client)), lambda: Leases(client, prefix))


def holder_of(tag: str) -> Leases | None:
    """Return this process's leases that hold a job, or None: a pool's process holds none itself."""
    return next((leases for leases in list(_process_leases.values()) if leases.holds(tag)), None)


def requeue_everything() -> None:
    """Return all that this process still holds; for its end."""
    for leases in list(_process_leases.values()):
        leases.close()
    _process_leases.clear()


atexit.register(requeue_everything)
# A forked pool process holds nothing itself, and must not return what its parent holds.
os.register_at_fork(after_in_child=_process_leases.clear)

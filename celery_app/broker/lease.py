"""The jobs a process holds: their leases are kept alive, and what the broker could not be told is told later."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis

from celery_app.broker.dead_letters import job_in_hand
from celery_app.broker.debts import Debts, refusals
from celery_app.process.away import say_away
from celery_app.process.heartbeat import HEARTBEAT, Entry
from celery_app.scheduler.scripts import ACK, DEAD_LETTER, EXTEND, REQUEUE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from celery_app.script import Script

logger = logging.getLogger(__name__)

#: Seconds that a claim lasts without a sign of life: short, as a person may wait; long against a busy process's pauses.
LEASE = 15.0

#: Seconds between two signs of life, and between two reapings of what others abandoned: five may fail before a lease
#: expires, and a killed worker's jobs are back after at most LEASE + EXTEND_EVERY = 18 s.
EXTEND_EVERY = 3.0

#: Seconds between two tries to ack what could not be acked, and for how long such a try may go on while the broker
#: is slow: the leases have to be extended meanwhile.
RETRY_EVERY, RETRY_FOR = 0.5, 1.0

#: Seconds that this process leaves other workers' leases alone after it lost the broker: they lost it, too, and their
#: leases look expired until each of them has said that it is alive.
GRACE = 2 * EXTEND_EVERY

#: What a broker that restarts, fails over or is full may answer for a while.
TRANSIENT = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError, OSError)


class Leases:
    """What this process holds, whichever connection it came through.

    A connection may be lost and replaced while its jobs go on; they are acked, requeued and kept alive here, with
    connections of their own. The heartbeat extends the leases while there are any.
    """

    def __init__(self, client: redis.Redis, prefix: str, *, repeats: bool = True) -> None:
        """Hold nothing yet.

        Args:
            client: without a key prefix of its own; the heartbeat uses it, too.
            prefix: of all keys.
            repeats: whether what the broker could not do is repeated later, or raised.
        """
        self.client = client
        self.prefix = prefix
        self._repeats = repeats
        #: Begins each token of a claim: all that one process holds is lost at once.
        self.process = uuid.uuid4().hex
        self._extending = Entry("extend the leases of jobs in hand", EXTEND_EVERY, self._extend)
        self._acking = Entry("tell the broker how jobs ended", RETRY_EVERY, self._repeat_acks)
        self._held: dict[str, str] = {}
        self._suspects: set[str] = set()
        #: Jobs of which the broker is being told at this moment how they ended.
        self._ending: set[str] = set()
        self._unacked: dict[tuple[str, str], tuple[Script, tuple[Any, ...]]] = {}
        #: What their calls have used, where the budget could not be told.
        self.debts = Debts(client)
        self._lock = threading.Lock()
        self._trusted_from = 0.0
        self._closed = False

    @property
    def has_suspect(self) -> bool:
        """Whether one of the jobs was in hand when other processes died; no process gets two of them at a time."""
        return bool(self._suspects)

    def register(self, tag: str, token: str, *, suspect: bool = False) -> None:
        """Keep the lease of a claimed job, or of a call, alive from now on."""
        with self._lock:
            self._held[tag] = token
            if suspect:
                self._suspects.add(tag)
        self._wake(self._extending)

    def ack(self, tag: str, token: str) -> bool:
        """End a job that is done, unless the heartbeat has still to tell of its end: it may be another one."""
        return (tag, token) in self._unacked or self._let_go(tag, token, ACK, (self.prefix, tag, token))

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
            went_wrong: it is one step nearer to being dead-lettered.
            to_back: it goes behind all others instead, as kombu has it for queues that are no lanes.
            facts: what else is to be known of it from now on, by the names in ``scheduler/scripts/lib/jobs.lua``.

        Returns:
            Whether the job was still held; if not, it is elsewhere, and nothing has been done.
        """
        options = (max(0, round(delay * 1000)), retries, int(went_wrong), int(to_back))
        noted = (part for fact in (facts or {}).items() for part in fact)
        return self._let_go(tag, token, REQUEUE, (self.prefix, tag, token, *options, *noted))

    def dead_letter(self, tag: str, token: str, reason: str, retries: int = -1, *, told: bool = False) -> bool:
        """Put a job among the dead letters; as `requeue`. Unless who waits has been `told`, any worker does so."""
        return self._let_go(tag, token, DEAD_LETTER, (self.prefix, tag, token, reason, retries, int(told)))

    def extend(self, held: Mapping[str, str], reap_after: float) -> list[str]:
        """Give a sign of life for jobs, tag -> token, and reap what others abandoned; return the tags that are lost."""
        pairs = [part for pair in held.items() for part in pair]
        lost: list[bytes] = EXTEND.run(self.client, (), (self.prefix, round(reap_after * 1000), *pairs))
        return [tag.decode() for tag in lost]

    def reap_after(self) -> float:
        """Return the age in seconds from which other workers' leases count as expired; 0: leave them alone."""
        return LEASE if time.monotonic() >= self._trusted_from else 0.0

    def broker_was_lost(self) -> None:
        """Give other workers time to say that they are alive."""
        self._trusted_from = time.monotonic() + GRACE

    def requeue_all(self, claims: Iterable[tuple[str, str]]) -> None:
        """Return what is still held of these jobs, by tag and token, at once."""
        for tag, token in claims:
            if self._held.get(tag) != token or (tag, token) in self._unacked:
                continue
            self.requeue(tag, token)

    def close(self) -> None:
        """Tell the broker what it has not been told and return all that is held; for the end of the process."""
        self._closed = True
        for entry in (self._extending, self._acking):
            HEARTBEAT.end(entry)
        self._acking.run()
        self.requeue_all(list(self._held.items()))

    def holds(self, tag: str) -> bool:
        """Say whether a job is held by this process, and its end has not been told."""
        return tag in self._held or tag in self._ending

    def _let_go(self, tag: str, token: str, script: Script, arguments: tuple[Any, ...]) -> bool:
        """Run a script that ends a claim; where the broker is away, have the heartbeat repeat it until it stands.

        Repeating is safe: a token is good for one claim. Returns whether the job was still held, as far as is known.
        """
        self._ending.add(tag)
        was_held = self._release(tag, token)
        try:
            self.debts.pay(tag, token)
            return bool(script.run(self.client, (), arguments))
        except TRANSIENT as exc:
            if not self._repeats:
                raise
            say_away(f"{script.name} of a job has to wait for the broker", exc)
            self.broker_was_lost()
            with self._lock:
                self._unacked[tag, token] = (script, arguments)
                if was_held:
                    self._held.setdefault(tag, token)  # its lease has to last until this stands
            self._wake(self._extending)
            self._wake(self._acking)
            return True
        finally:
            self._ending.discard(tag)

    def _release(self, tag: str, token: str) -> bool:
        """Keep a claim's lease alive no longer, but that of a later claim of the same job; return whether it was."""
        with self._lock:
            if self._held.get(tag) != token:
                return False
            del self._held[tag]
            self._suspects.discard(tag)
            return True

    def _wake(self, entry: Entry) -> None:
        if not self._closed:
            HEARTBEAT.wake(entry)

    @contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self.broker_was_lost()
            raise

    def _repeat_acks(self) -> bool:
        """Try again what is not acked yet: each entry for itself, one that is refused holds up none behind it."""
        stop_at = time.monotonic() + RETRY_FOR
        with self._noticing_loss():
            for (tag, token), (script, arguments) in list(self._unacked.items()):
                if time.monotonic() > stop_at:
                    break
                self._try_again(tag, token, script, arguments)
        return bool(self._unacked)

    def _try_again(self, tag: str, token: str, script: Script, arguments: tuple[Any, ...]) -> None:
        try:
            self.debts.pay(tag, token)
            script.run(self.client, (), arguments)
        except redis.ResponseError as exc:
            # No sign that the broker is away: `_extend` would hear so, too.
            refusals.say(f"the broker refuses to end claims ({script.name})", f"{script.name} of a job: {exc}")
            with self._lock:
                if self._unacked.pop((tag, token), None) is not None:
                    self._unacked[tag, token] = (script, arguments)  # behind the others: they have their turns, too
            return
        with self._lock:
            self._unacked.pop((tag, token), None)
        self._release(tag, token)

    def _extend(self) -> bool:
        with self._lock:
            held = dict(self._held)
        if held:
            with self._noticing_loss():
                lost = self.extend(held, self.reap_after())
            for tag in lost:
                self._lost(tag, held[tag])
        return bool(self._held)

    def _lost(self, tag: str, token: str) -> None:
        """A lease expired: another worker has the job now, and acknowledging it here would mean nothing."""
        if not self._release(tag, token):
            return  # acked meanwhile
        logger.warning("%s: its lease expired while it was running here; it is run elsewhere, too", job_in_hand(tag))

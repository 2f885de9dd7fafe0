"""The way of events from a process's calls into Redis: one writer for all of them.

A thread that wrote each of its tokens itself would spend more on Redis' protocol than on the API's. The writer takes
what all streams of the process have produced within `GROUP` and sends it in one pipeline, a single entry per stream.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import redis

from celery_app.connections.redis_client import redis_client, stream_key, takes_no_writes
from celery_app.keys import ATTEMPT, EVENTS, FIRST, MESSAGE, STREAM_KEPT, STREAM_KEPT_RUNNING
from celery_app.process.forks import begin_in_each_process

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

#: Seconds for which tokens are collected. Below what an eye notices, and at a fast model's 100 tokens/s already enough
#: for more than one token an entry.
GROUP = 0.015

#: Seconds between two tries while Redis is away or takes no writes, and how long they are repeated before a reader's
#: loss is accepted.
AWAY_PAUSE, AWAY_FOR = 0.2, 30.0

#: Random bytes that tell an attempt from all others of its job.
_ATTEMPT_BYTES = 4

#: The reader drops what it has.
RESTART = b'{"type": "restart"}'

Command: TypeAlias = tuple[Any, ...]


class RelayedStream:
    """The events of one attempt at a job; written by the loop of its calls, ended by its slot."""

    def __init__(self, relay: Relay, key: str, *, anew: bool) -> None:
        """Begin an attempt.

        Args:
            relay: of the process.
            key: of the stream in Redis.
            anew: whether an attempt before has written something.
        """
        self._relay, self._key, self._anew = relay, key, anew
        self._attempt = secrets.token_hex(_ATTEMPT_BYTES)
        self._pending: list[bytes] = []
        self._written = 0
        self._message: bytes | None = None
        self._sent = threading.Event()
        if anew:
            self.write([RESTART], at_once=True)

    def write(self, events: Sequence[bytes], *, at_once: bool = False) -> None:
        """Send events, each a line of JSON, within `GROUP` or at once."""
        self._relay.add(self, events, at_once=at_once)

    def end(self, message: bytes) -> None:
        """Send what is left and the whole message, and wait until Redis has them."""
        self._message = message
        self.flush()

    def flush(self) -> None:
        """Wait until Redis has all; not for ever, since the job goes on without its readers."""
        self._sent.clear()
        self._relay.add(self, (), at_once=True)
        self._sent.wait(2 * AWAY_FOR)

    def take(self) -> list[Command]:
        """Give the commands that send what is pending; for the relay."""
        first, last = self._written == 0, self._message is not None
        if not (self._pending or last):
            return []
        end = () if self._message is None else (MESSAGE, self._message)
        entry = (ATTEMPT, self._attempt, FIRST, self._written, EVENTS, b"\n".join(self._pending), *end)
        self._written += len(self._pending)
        self._pending, self._message = [], None
        commands: list[Command] = [("XADD", self._key, "*", *entry)]
        if first and self._anew:
            # Nobody needs what came before; the stream's last id stays, so that readers go on behind it.
            commands.insert(0, ("XTRIM", self._key, "MAXLEN", 0))
        if first or last:
            commands.append(("EXPIRE", self._key, STREAM_KEPT if last else STREAM_KEPT_RUNNING))
        return commands

    def extend(self, events: Sequence[bytes]) -> None:
        """Add to what is pending; for the relay."""
        self._pending.extend(events)

    def sent(self) -> None:
        """Note that what was taken is in Redis; for the relay."""
        if not self._pending and self._message is None:
            self._sent.set()


class Relay:
    """The writer of a process; its thread starts with the first event.

    The thread is no entry of the heartbeat's: an event is written within `GROUP`, however long leases or metrics take,
    and a broker that is away is waited for.
    """

    def __init__(self, client: redis.Redis) -> None:
        """Take a client that puts no prefix before the keys."""
        self._client = client
        begin_in_each_process(self)

    def begin(self) -> None:
        """Have nothing to write: the parent's events are the parent's to write."""
        self._lock = threading.Lock()
        self._dirty: dict[RelayedStream, None] = {}
        self._filled, self._urgent = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, stream: RelayedStream, events: Sequence[bytes], *, at_once: bool) -> None:
        """Take a stream's events."""
        with self._lock:
            stream.extend(events)
            self._dirty[stream] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lanes-relay", daemon=True)
                self._thread.start()
        if at_once:
            self._urgent.set()
        if not self._filled.is_set():
            self._filled.set()

    def _run(self) -> None:
        while True:
            self._filled.wait()
            self._urgent.wait(GROUP)
            self._urgent.clear()
            self._filled.clear()
            self._send_all()

    def _send_all(self) -> None:
        with self._lock:
            streams = list(self._dirty)
            self._dirty.clear()
            commands = [command for stream in streams for command in stream.take()]
        if commands:
            self._send_until_there(commands)
        with self._lock:
            for stream in streams:
                stream.sent()

    def _send_until_there(self, commands: list[Command]) -> None:
        """Repeat what Redis may have got already: readers go by the events' numbers."""
        give_up_at = time.monotonic() + AWAY_FOR
        while True:
            try:
                self._send(commands)
            except redis.RedisError as exc:
                if time.monotonic() > give_up_at:
                    logger.warning("events of %d commands are lost to their readers: %s", len(commands), exc)
                    return
                time.sleep(AWAY_PAUSE)
            else:
                return

    def _send(self, commands: list[Command]) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            execute: Any = pipeline.execute_command  # redis-py leaves it untyped
            for command in commands:
                execute(*command)
            for reply in pipeline.execute(raise_on_error=False):
                if isinstance(reply, redis.ConnectionError | redis.TimeoutError) or takes_no_writes(reply):
                    raise reply
                if isinstance(reply, redis.RedisError):
                    logger.warning("events are lost to their readers: %s", reply)


def relay_for(app: Any) -> Relay:
    """Return the relay of an application in this process."""
    relay: Relay | None = getattr(app, "lanes_relay", None)
    if relay is None:
        relay = vars(app)["lanes_relay"] = Relay(redis_client(app))
    return relay


def end_failed(app: Any, task_id: str, error: bytes) -> None:
    """Tell the readers of a job's stream that it has failed for good.

    Args:
        app: the Celery application.
        task_id: of the job.
        error: the Messages API's event of type ``error``, as JSON.

    Raises:
        redis.exceptions.RedisError: if Redis is away.
    """
    key = stream_key(app, task_id)
    with redis_client(app).pipeline(transaction=False) as pipeline:
        # No attempt's token: it is true whichever the reader follows.
        pipeline.xadd(key, {ATTEMPT: "", FIRST: 0, EVENTS: error, MESSAGE: ""})
        pipeline.expire(key, STREAM_KEPT)
        pipeline.execute()

"""kombu's Redis channel with another way in and out of the lanes; any other queue is kombu's own."""

from __future__ import annotations

import itertools
import logging
import time
from contextlib import closing, contextmanager
from queue import Empty
from typing import TYPE_CHECKING, Any

import redis
from kombu.transport import redis as kombu_redis

from celery_app.broker.arrivals import take_in
from celery_app.broker.claims import claim_of
from celery_app.broker.delivery import Delivery
from celery_app.broker.holders import leases_for
from celery_app.broker.lease import Leases
from celery_app.broker.publisher import LanePublishBatch, Publisher
from celery_app.broker.qos import QoS
from celery_app.broker.rules import LANE_NAMES, LaneRules
from celery_app.broker_urls import SENTINEL
from celery_app.connection import connection_pool
from celery_app.heartbeat import REPLY_TIMEOUT
from celery_app.keys import ARRIVED, TEXT, WAKEUP
from celery_app.scheduler.scripts import CLAIM, PURGE, STATS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_app.lanes import Lane

logger = logging.getLogger(__name__)

#: Seconds that an idle worker blocks on its wakeups at most: what a stock producer puts into a lane sends none.
WAKEUP_WAIT = 0.25

#: Jobs claimed in one round trip at most. Each is handed to its slot before the next claim, so a critical job that
#: arrives meanwhile waits for that many hand-overs.
MOST_AT_ONCE = 4

#: Seconds between two claims that the server refuses: out of memory, disk full.
REFUSED_PAUSE = 0.5


#: Jobs that `purge` drops in one step: the server is busy with them for some milliseconds.
MOST_PURGED = 250

#: Jobs claimed at once by a consumer without a prefetch limit, or without acknowledgements: it may take one and close.
ONE = 1


class Channel(kombu_redis.Channel):
    """Claims from lanes instead of popping; puts into lanes with a limit instead of pushing.

    kombu's poller calls `_brpop_start` whenever there is a free slot and no command under way, and `_brpop_read` when
    the reply is there; the names are its own. A channel that consumes from no lane does all of it kombu's way. One that
    consumes from lanes and other queues claims from both, so that a free slot serves the lanes first.
    """

    QoS = QoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Open a channel that is hungry: its first command is a claim."""
        self._unheld: set[str] = set()
        self._hungry = True
        #: Whether the command under way is a claim; a queue that is added meanwhile makes us hungry all the same.
        self._claiming = False
        #: Whether the command under way is kombu's own, because no lane was consumed from when it was sent.
        self._stock = True
        self._wakeup_wait = WAKEUP_WAIT
        self._token = ""
        #: Jobs that the claim under way asks for.
        self._asked = 0
        #: Queues whose jobs the claim under way holds; by the time of its reply nobody may consume from them any more.
        self._claimed_to_hold: frozenset[str] = frozenset()
        self._script_is_known = True
        super().__init__(*args, **kwargs)

    @property
    def rules(self) -> LaneRules | None:
        """The lanes' rules; None where the connection belongs to no application with lanes."""
        # A channel that is closed after its connection was lost has a transport without a client.
        client = getattr(self.connection, "client", None)
        return client.rules if client is not None else None

    def lane(self, queue: str) -> Lane | None:
        """Return a queue's lane, None for a queue that is kombu's own."""
        return self.rules.lane(queue) if self.rules is not None and queue in LANE_NAMES else None

    def is_lane(self, queue: str) -> bool:
        """Say whether a queue is a lane, whatever the settings say of it."""
        return self.rules is not None and queue in LANE_NAMES

    def _serves_lanes(self) -> bool:
        return any(map(self.is_lane, self.active_queues))

    @property
    def leases(self) -> Leases:
        """What this process holds at this channel's broker."""
        if self._leases is None:
            client = self.connection.client
            # All Sentinels lead to one master, whichever a connection has come to.
            sentinels = client.alt if client.transport_cls == SENTINEL else ()
            key = (*(sentinels or (client.hostname, client.port)), client.virtual_host, self.global_keyprefix)
            self._leases = leases_for(key, self._make_leases)
        return self._leases

    _leases: Leases | None = None

    def _make_leases(self) -> Leases:
        # A pool of its own: it outlives the channel, which goes when its connection does.
        pool = connection_pool(self.connection.client, REPLY_TIMEOUT)
        return Leases(redis.Redis(connection_pool=pool), self.global_keyprefix)

    def wake(self) -> None:
        """Have the event loop look for work: a slot is free."""
        loop_wakeup = self.connection.loop_wakeup if self.connection is not None else None
        if loop_wakeup is not None:
            loop_wakeup.wake()

    # The way out ------------------------------------------------------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue; without acknowledgements its messages are gone once claimed."""
        (self._unheld.add if no_ack else self._unheld.discard)(queue)
        self._hungry = True
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        self._stock = not self._serves_lanes()
        if self._stock:
            super()._brpop_start(timeout)
            return
        queues = self._queues_in_order()
        if not queues:
            return
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = time.monotonic()
        self._claiming = self._hungry
        if self._claiming:
            self._token = self._new_token()
            self._claimed_to_hold = frozenset(queues) - self._unheld
            self._asked = self._free_slots()
            connection.send_command(*self._claim_command(queues, self._asked, self._token))
        else:
            wakeups = [WAKEUP.of(self.global_keyprefix, queue) for queue in queues]
            connection.send_command("BRPOP", *wakeups, self._wakeup_wait)

    def _brpop_read(self, **options: Any) -> bool:
        if self._stock:
            return bool(super()._brpop_read(**options))
        was_claim = self._claiming
        try:
            reply = self.client.parse_response(self.client.connection, "EVALSHA" if was_claim else "BRPOP", **options)
        except redis.RedisError as exc:
            self._on_refused(exc)
            raise Empty from exc
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        self._script_is_known = True
        if was_claim:
            return self._deliver_claimed(reply)
        self._hungry = True
        raise Empty

    def _queues_in_order(self) -> list[str]:
        """Lanes first, by importance and not by ``-Q``; then the rest, in turns."""
        active = self.active_queues
        others = [queue for queue in self._queue_cycle.consume(len(active)) if not self.is_lane(queue)]
        return [lane for lane in LANE_NAMES if self.is_lane(lane) and lane in active] + others

    def _free_slots(self) -> int:
        free = self.qos.can_consume_max_estimate()
        return ONE if free is None or self._unheld else max(1, min(free, MOST_AT_ONCE))

    def _new_token(self) -> str:
        return f"{self.leases.process}:{next(_numbers)}"

    def _claim_command(self, queues: list[str], most: int, token: str) -> list[Any]:
        head = ["EVALSHA", CLAIM.sha] if self._script_is_known else ["EVAL", CLAIM.source]
        return [*head, 0, *self._claim_arguments(queues, most, token)]

    def _claim_arguments(self, queues: list[str], most: int, token: str) -> list[Any]:
        if self.rules is not None:
            with _coming_back():
                self.rules.keep_terms(self._plain_client(), self.global_keyprefix)
        reap_after = round(self.leases.reap_after() * 1000)
        steps = ",".join(map(str, self.priority_steps))
        own = [queue for queue in queues if not self.is_lane(queue)]
        flags = [part for queue in own for part in (queue, self._flag(queue))]
        options = (token, most, reap_after, round(WAKEUP_WAIT * 1000), int(self.leases.has_suspect), self.sep, steps)
        return [self.global_keyprefix, *options, len(own), *flags, *self._lane_arguments(queues)]

    def _flag(self, queue: str) -> str:
        """Say how the script is to hand out a queue's messages: under a lease, or for good."""
        return "1" if queue in self._unheld else "2"

    def _lane_arguments(self, queues: list[str]) -> list[Any]:
        return [
            part
            for lane in map(self.lane, LANE_NAMES)
            if lane is not None
            for part in (*lane.arguments, self._flag(lane.name) if lane.name in queues else "0")
        ]

    def _on_refused(self, exc: redis.RedisError) -> None:
        """A claim failed: bring the script along, wait for the server to recover, or have kombu reconnect."""
        if isinstance(exc, redis.exceptions.NoScriptError):
            self._script_is_known = False
            return
        self.leases.broker_was_lost()
        if isinstance(exc, redis.exceptions.ReadOnlyError):
            # A failover: this server is a replica now, and the address leads to another one.
            exc = redis.ConnectionError(str(exc))
        if isinstance(exc, self.connection_errors):
            self.client.connection.disconnect()
            raise exc
        logger.warning("the broker refuses to hand out jobs: %s", exc)
        time.sleep(REFUSED_PAUSE)

    def _deliver_claimed(self, reply: list[Any]) -> bool:
        look_ms, has_arrivals, unknown, rows = reply
        held = self._claimed_to_hold
        claimed = Delivery(rows, self._token, held, self.leases)
        if self._closing:
            claimed.requeue()
            raise Empty
        self._prepare(has_arrivals, unknown)
        # A claim that could have had more has left nothing, and whatever comes since has sent a wakeup.
        self._hungry = len(claimed) >= self._asked or bool(has_arrivals or unknown)
        # At least a millisecond: 0 would block for ever.
        self._wakeup_wait = WAKEUP_WAIT if look_ms < 0 else min(WAKEUP_WAIT, max(look_ms, 1) / 1000)
        with closing(claimed.messages(self._read_text)) as messages:
            for queue, message in messages:
                self._queue_cycle.rotate(queue)
                self._deliver_job(queue, message, queue in held)
        if not claimed:
            raise Empty
        return True

    def _prepare(self, has_arrivals: int, unknown: list[Any]) -> None:
        """Do what the next claim needs: take in what stock producers have left, and write down the models' budgets."""
        try:
            if has_arrivals:
                self._take_in()
            if unknown and self.rules is not None:
                pairs = zip(unknown[::2], unknown[1::2], strict=True)
                models = [(lane.decode(), model.decode()) for lane, model in pairs]
                self.rules.write_terms(self._plain_client(), self.global_keyprefix, models)
        except redis.ResponseError as exc:
            logger.warning("the broker refuses to take in jobs: %s", exc)
            time.sleep(REFUSED_PAUSE)

    def _take_in(self) -> None:
        for lane in self.active_queues:
            if self.is_lane(lane):
                self._take_in_lane(lane)

    def _take_in_lane(self, lane: str) -> None:
        take_in(self._plain_client(), self.global_keyprefix, lane, self._lists_of(lane), self._step_of)

    def _lists_of(self, queue: str) -> list[str]:
        return [self._q_for_pri(queue, step) for step in self.priority_steps]

    def _step_of(self, message: dict[str, Any]) -> int:
        return int(self.priority(self._get_message_priority(message)))

    def _read_text(self, job_id: str) -> bytes | None:
        text: Any = self._plain_client().get(TEXT.of(self.global_keyprefix, job_id))
        return None if text is None else bytes(text)

    def _deliver_job(self, queue: str, message: dict[str, Any], held: bool) -> None:
        """Give a message to its consumer; a job that the consumer stumbles over must not end the worker."""
        delivery = message["properties"]["delivery_tag"]
        try:
            self.connection._deliver(message, queue)
        except (redis.RedisError, OSError):
            self.leases.requeue_all([claim_of(delivery)])
            raise
        except Exception as exc:
            if not held or not self.is_lane(queue):
                raise
            self.leases.dead_letter(*claim_of(delivery), f"no worker can take it up: {type(exc).__name__}")
            if delivery in self.qos._delivered:
                self.qos._free_slot(delivery)

    def _get(self, queue: str) -> dict[str, Any]:
        """Claim one message without a consumer; `basic_get` counts it."""
        if not self.is_lane(queue):
            message: dict[str, Any] = super()._get(queue)
            return message
        for _ in range(_TRIES):
            token = self._new_token()
            arguments = self._claim_arguments([queue], 1, token)
            _, has_arrivals, unknown, rows = CLAIM.run(self._plain_client(), (), arguments)
            claimed = Delivery(rows, token, frozenset({queue}) - self._unheld, self.leases)
            messages = [message for _, message in claimed.messages(self._read_text)]
            if messages:
                return messages[0]
            if has_arrivals:
                self._take_in_lane(queue)
            self._prepare(0, unknown)
        raise Empty

    def _size(self, queue: str) -> int:
        if not self.is_lane(queue):
            return int(super()._size(queue))
        return sum(self._queued(queue))

    def _queued(self, lane: str) -> tuple[int, int]:
        """Return how many jobs of a lane are queued, and how many wait for a time."""
        steps = ",".join(map(str, self.priority_steps))
        ((queued, _, _, scheduled, _),) = STATS.run(
            self._plain_client(), (), (self.global_keyprefix, self.sep, steps, lane)
        )
        return int(queued), int(scheduled)

    def _purge(self, queue: str) -> int:
        if not self.is_lane(queue):
            return int(super()._purge(queue))
        lists = [*self._lists_of(queue), ARRIVED.of("", queue)]
        purged, cursor = 0, b"0"
        while cursor:
            arguments = (self.global_keyprefix, queue, MOST_PURGED, cursor, *lists)
            dropped, cursor = PURGE.run(self._plain_client(), (), arguments)
            purged += dropped
        return purged

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> None:
        """Delete a queue; kombu looks for what is left of it in its lists only."""
        if if_empty and self.is_lane(queue) and self._size(queue):
            return
        super().queue_delete(queue, if_unused, if_empty, **kwargs)

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        """Delete a queue; of a lane, what waits elsewhere than in its lists, too."""
        if self.is_lane(queue):
            self._purge(queue)
        super()._delete(queue, *args, **kwargs)

    def _queue_bind(self, *args: Any, **kwargs: Any) -> None:
        """Bind a queue; to a worker for lanes, a server that refuses to write is one to come back to, not its end."""
        if self.rules is None or not self.rules.serving:
            super()._queue_bind(*args, **kwargs)
            return
        with _coming_back():
            super()._queue_bind(*args, **kwargs)

    # The way in -------------------------------------------------------------------------------------------------

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if not self.is_lane(queue):
            if self.connection is None and queue in LANE_NAMES:
                raise redis.ConnectionError("the channel is closed")  # kombu opens another one, and repeats
            super()._put(queue, message, **kwargs)
            return
        batch = kwargs.get("_publish_batch")
        publisher = Publisher(self, queue, message)
        if batch is None:
            publisher.put(self._plain_client().connection_pool)
        else:
            batch.add_job(publisher)

    def create_publish_batch(self, max_size: int) -> LanePublishBatch:
        """Create a publish batch that knows of full lanes."""
        return LanePublishBatch(self, max_size)

    def _plain_client(self) -> redis.Redis:
        """Return a client that takes keys as they are; ours bear the prefix already."""
        client = self._plain
        if client is None or client.connection_pool is not self.pool:
            # Building one takes 100 µs, a tenth of what submitting a job does.
            client = self._plain = redis.Redis(connection_pool=self.pool)
        return client

    _plain: redis.Redis | None = None


@contextmanager
def _coming_back() -> Iterator[None]:
    """Have the worker connect anew after a write that the server refuses, for whatever reason: it would end else."""
    try:
        yield
    except redis.ResponseError as exc:
        logger.warning("the broker refuses what a worker writes at its start: %s", exc)
        time.sleep(REFUSED_PAUSE)
        raise redis.ConnectionError(str(exc)) from exc


#: Number the claims of a process.
_numbers = itertools.count()

#: Claims of `basic_get`: the first may find what has to be taken in, or a model that nobody knows.
_TRIES = 3


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """The same to whichever server Sentinel names."""

    from_transport_options = (*kombu_redis.SentinelChannel.from_transport_options, "lanes")

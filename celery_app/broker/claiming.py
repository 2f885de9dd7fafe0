"""The way out of the lanes: kombu's Redis channel, which claims jobs instead of popping them."""

from __future__ import annotations

import itertools
import time
from contextlib import closing
from queue import Empty
from typing import TYPE_CHECKING, Any

import redis
from kombu.transport import redis as kombu_redis

from celery_app.broker.claim_request import WAKEUP_WAIT, ClaimRequest
from celery_app.broker.claims import claim_of
from celery_app.broker.delivery import Delivery
from celery_app.broker.holders import leases_of
from celery_app.broker.lane_queue import LaneQueue
from celery_app.broker.refused_writes import coming_back, wait_for_server
from celery_app.broker.rules import LANE_NAMES, LaneRules
from celery_app.keys import TEXT, WAKEUP
from celery_app.scheduler.scripts import CLAIM
from celery_app.stopping.told import stops, waits_softly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery_app.broker.lease import Leases
    from celery_app.lanes import Lane

#: Jobs claimed in one round trip at most. Each is handed to its slot before the next claim, so a critical job that
#: arrives meanwhile waits for that many hand-overs.
MOST_AT_ONCE = 4

#: Jobs claimed at once by a consumer without a prefetch limit, or without acknowledgements: it may take one and close.
ONE = 1

#: Claims of `basic_get`: the first may find what has to be taken in, or a model that nobody knows.
_TRIES = 3

#: Number the claims of a process.
_numbers = itertools.count()


class ClaimingChannel(kombu_redis.Channel):
    """Claims from lanes instead of popping.

    kombu's poller calls `_brpop_start` whenever there is a free slot and no command under way, and `_brpop_read` when
    the reply is there; the names are its own. A channel that consumes from no lane does all of it kombu's way. One that
    consumes from lanes and other queues claims from both, so that a free slot serves the lanes first.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Open a channel that is hungry: its first command is a claim."""
        #: Queues whose messages are gone once claimed.
        self.unheld: set[str] = set()
        self._hungry = True
        #: The claim under way; a queue that is added meanwhile makes us hungry all the same.
        self._claim: ClaimRequest | None = None
        #: Whether the command under way is kombu's own, because no lane was consumed from when it was sent.
        self._stock = True
        self._wakeup_wait = WAKEUP_WAIT
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
            self._leases = leases_of(self.connection.client, self.global_keyprefix)
        return self._leases

    _leases: Leases | None = None

    @property
    def steps(self) -> str:
        """The priority steps, as the scripts take them."""
        return ",".join(map(str, self.priority_steps))

    @property
    def plain_client(self) -> redis.Redis:
        """A client that takes keys as they are; ours bear the prefix already."""
        client = self._plain
        if client is None or client.connection_pool is not self.pool:
            # Building one takes 100 µs, a tenth of what submitting a job does.
            client = self._plain = redis.Redis(connection_pool=self.pool)
        return client

    _plain: redis.Redis | None = None

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue; without acknowledgements its messages are gone once claimed."""
        (self.unheld.add if no_ack else self.unheld.discard)(queue)
        self._hungry = True
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        if waits_softly():
            return
        self._stock = not any(map(self.is_lane, self.active_queues))
        if self._stock:
            super()._brpop_start(timeout)
            return
        queues = self._queues_in_order()
        if not queues:
            return
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = time.monotonic()
        self._claim = self._new_claim(queues, self._free_slots()) if self._hungry else None
        if self._claim:
            connection.send_command(*self._claim.command(script_is_known=self._script_is_known))
        else:
            wakeups = [WAKEUP.of(self.global_keyprefix, queue) for queue in queues]
            connection.send_command("BRPOP", *wakeups, self._wakeup_wait)

    def _brpop_read(self, **options: Any) -> bool:
        if self._stock:
            return bool(super()._brpop_read(**options))
        claim = self._claim
        try:
            reply = self.client.parse_response(self.client.connection, "EVALSHA" if claim else "BRPOP", **options)
        except redis.RedisError as exc:
            self._on_refused(exc)
            raise Empty from exc
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        self._script_is_known = True
        if claim:
            return self._deliver_claimed(claim, reply)
        self._hungry = True
        raise Empty

    def _queues_in_order(self) -> list[str]:
        """Lanes first, by importance and not by ``-Q``; then the rest, in turns."""
        active = self.active_queues
        others = [queue for queue in self._queue_cycle.consume(len(active)) if not self.is_lane(queue)]
        return [lane for lane in LANE_NAMES if self.is_lane(lane) and lane in active] + others

    def _free_slots(self) -> int:
        free = self.qos.can_consume_max_estimate()
        return ONE if free is None or self.unheld else max(1, min(free, MOST_AT_ONCE))

    def _new_claim(self, queues: Sequence[str], most: int) -> ClaimRequest:
        if self.rules is not None:
            with coming_back():
                self.rules.keep_terms(self.plain_client, self.global_keyprefix)
        return ClaimRequest.of(self, queues, most, f"{self.leases.process}:{next(_numbers)}")

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
        wait_for_server("to hand out jobs", exc)

    def _deliver_claimed(self, claim: ClaimRequest, reply: list[Any]) -> bool:
        look_ms, has_arrivals, unknown, rows = reply
        claimed = Delivery(rows, claim.token, claim.held, self.leases)
        if self._closing:
            claimed.requeue()
            raise Empty
        self._prepare([queue for queue in self.active_queues if has_arrivals and self.is_lane(queue)], unknown)
        # A claim that could have had more has left nothing, and whatever comes since has sent a wakeup.
        self._hungry = len(claimed) >= claim.most or bool(has_arrivals or unknown)
        # At least a millisecond: 0 would block for ever.
        self._wakeup_wait = WAKEUP_WAIT if look_ms < 0 else min(WAKEUP_WAIT, max(look_ms, 1) / 1000)
        with closing(claimed.messages(self._read_text)) as messages:
            for queue, message in messages:
                self._queue_cycle.rotate(queue)
                self._deliver_job(queue, message, queue in claim.held)
        if not claimed:
            raise Empty
        return True

    def _prepare(self, arrived: Sequence[str], unknown: list[Any]) -> None:
        """Do what the next claim needs: take in what stock producers have left, and write down the models' budgets."""
        try:
            for lane in arrived:
                LaneQueue(self, lane).take_in()
            if unknown and self.rules is not None:
                pairs = zip(unknown[::2], unknown[1::2], strict=True)
                models = [(lane.decode(), model.decode()) for lane, model in pairs]
                self.rules.write_terms(self.plain_client, self.global_keyprefix, models)
        except redis.ResponseError as exc:
            wait_for_server("to take in jobs", exc)

    def _read_text(self, job_id: str) -> bytes | None:
        text: Any = self.plain_client.get(TEXT.of(self.global_keyprefix, job_id))
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
            if stops():
                # A signal that came meanwhile has closed the pool under it: the job is as good as any.
                self.leases.requeue_all([claim_of(delivery)])
            else:
                self.leases.dead_letter(*claim_of(delivery), f"no worker can take it up: {type(exc).__name__}")
            if delivery in self.qos._delivered:
                self.qos._free_slot(delivery)

    def _get(self, queue: str) -> dict[str, Any]:
        """Claim one message without a consumer; `basic_get` counts it."""
        if not self.is_lane(queue):
            message: dict[str, Any] = super()._get(queue)
            return message
        for _ in range(_TRIES):
            claim = self._new_claim([queue], 1)
            _, has_arrivals, unknown, rows = CLAIM.run(self.plain_client, (), claim.arguments)
            claimed = Delivery(rows, claim.token, claim.held, self.leases)
            messages = [message for _, message in claimed.messages(self._read_text)]
            if messages:
                return messages[0]
            self._prepare([queue] if has_arrivals else [], unknown)
        raise Empty

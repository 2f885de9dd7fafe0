"""The worker's consumer: what Celery cannot work on is kept with its reason, and its text stays out of the log.

Whoever waits for it is told like those of any job that ended in Redis, see `tasks.ended`.
"""

from __future__ import annotations

import logging
from types import NoneType
from typing import Any

from celery import signals
from celery.exceptions import InvalidTaskError
from celery.worker.consumer import Consumer
from kombu.exceptions import ContentDisallowed
from kombu.serialization import prepare_accept_content

from celery_app.broker.claims import claim_of, is_delivery, queue_of
from celery_app.broker.holders import holder_of
from celery_app.broker.packet import is_text
from celery_app.broker.request import LaneRequest
from celery_app.broker.rules import LANE_NAMES
from celery_app.jobs.descriptions import BUILT_IN
from celery_app.jobs.limits import RATE_REASON
from celery_app.messaging import SERIALIZER
from celery_app.settings import settings_of
from celery_app.stopping.giving_back import has_processes

logger = logging.getLogger(__name__)

#: How kombu names what lanes take.
JSON = ("application/json", None)

#: kombu's words for what `accept_content` does not name.
_UNTRUSTED = "Refusing to deserialize untrusted content of type json (application/json)"


class LaneConsumer(Consumer):
    """Celery's consumer, which would drop these jobs and log the beginning of their bodies."""

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        """Connect to the lanes' broker, with a worker's patience."""
        return self.ensure_connected(self.app.amqp.lane_connection())

    def connection_for_write(self, url: Any = None, heartbeat: Any = None) -> Any:
        """Connect there for events and replies, too, unless they are to go elsewhere."""
        if url is not None:
            return super().connection_for_write(url, heartbeat)
        return self.ensure_connected(self.app.amqp.lane_connection())

    def call_soon_ack(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        """Acknowledge what is done in its slot; Celery's main thread frees the slot when it comes to it.

        It may have a lot to do, and once it was told to stop it comes to nothing before the last job's end: whose
        worker is killed meanwhile would be done again.
        """
        message = getattr(p, "__self__", None)
        if message is not None and p.__name__ == "ack_log_error" and is_delivery(message.delivery_tag):
            claim = claim_of(message.delivery_tag)
            leases = holder_of(claim[0])
            if leases is not None:
                leases.ack(*claim)
        return super().call_soon_ack(p, *args, **kwargs)

    def cancel_active_requests(self) -> None:
        """Give back what runs, at Celery's cold shutdown; it raises for threads, and loses the job of a solo pool."""
        if has_processes(self.pool):
            self.controller.lanes_stopper.let_children_end()
            super().cancel_active_requests()
        else:
            self.controller.lanes_stopper.give_back()

    def update_strategies(self) -> None:
        """Have each task's jobs looked at before they reach a pool, whose threads lose what they cannot unpack."""
        for name, task in self.app.tasks.items():
            if name.startswith(BUILT_IN):
                # The arguments of a ``celery.map`` of ours are ours, and so are its results.
                task.Request, task.resultrepr_maxsize = LaneRequest, 0
            if getattr(task, "in_lanes", False):
                task.end_once()
        super().update_strategies()
        self.strategies.update({name: _checked(strategy) for name, strategy in self.strategies.items()})

    def bucket_for_task(self, type: Any) -> Any:  # noqa: A002 - Celery's name
        """Limit the rate of no task in lanes, however it came by a limit: its jobs would wait in slots."""
        return None if getattr(type, "in_lanes", False) else super().bucket_for_task(type)

    def _limit_task(self, request: Any, bucket: Any, tokens: int) -> Any:
        """Limit the rate of a project's own task; but its job that came through a lane runs at once."""
        lane = settings_of(self.app).lane(queue_of(request.message.properties, request.delivery_info))
        if lane is None:
            return super()._limit_task(request, bucket, tokens)
        logger.warning("the rate_limit of %s does not count in the lane %s: %s", request.name, lane.name, RATE_REASON)
        return self._limit_move_to_pool(request)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Have what a lane must not hold refused first."""
        handle = super().create_task_handler(*args, **kwargs)
        own_json = not prepare_accept_content(self.app.conf.accept_content).isdisjoint(JSON)

        def on_task_received(message: Any) -> Any:
            if is_in_lane(message) and message.content_type not in JSON:
                return self.on_decode_error(message, ContentDisallowed(f"lanes take {SERIALIZER} only"))
            if message.content_type in JSON and not (own_json or is_in_lane(message)):
                # The connection takes JSON for the lanes' sake; a project that signs its jobs must get no unsigned one.
                return self.on_invalid_task(None, message, ContentDisallowed(_UNTRUSTED))
            return handle(message)

        return on_task_received

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Dead-letter a message that is no Celery task."""
        if not is_in_lane(message):
            super().on_unknown_message(body, message)
            return
        _dead_letter(message, "no Celery task")
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Dead-letter a job for a task that this worker does not know."""
        if not is_in_lane(message):
            super().on_unknown_task(body, message, exc)
            return
        name, task_id = message.headers.get("task", "?"), message.headers.get("id")
        _dead_letter(message, f"unknown task {name!r}: import its module in the worker")
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Dead-letter a job whose message breaks Celery's protocol, or is no JSON."""
        if not is_in_lane(message):
            super().on_invalid_task(body, message, exc)
            return
        _dead_letter(message, f"invalid task message: {type(exc).__name__}")
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Dead-letter a message whose body cannot be decoded, such as a pickle."""
        if not is_in_lane(message):
            super().on_decode_error(message, exc)
            return
        _dead_letter(message, f"undecodable: {type(exc).__name__}, content type {message.content_type!r}")


def is_in_lane(message: Any) -> bool:
    """Say whether a message came out of a lane."""
    return queue_of(message.properties, message.delivery_info) in LANE_NAMES


def _checked(strategy: Any) -> Any:
    def handle(message: Any, *args: Any, **kwargs: Any) -> Any:
        if is_in_lane(message):
            if not _is_call(message.payload):
                raise InvalidTaskError("its body is no call")
            # Celery stumbles over these in its pool, where nobody hears of it: the slot is lost.
            if not is_text(_id_of(message)) or not isinstance(message.headers.get("shadow"), str | NoneType):
                raise InvalidTaskError("its id or its name is no text")
            if isinstance(message.payload, list):
                # A pool would decode it again, by the project's accept_content, and lose the job if that has no JSON.
                message.body, message.content_type = message.payload, None
        return strategy(message, *args, **kwargs)

    return handle


def _id_of(message: Any) -> Any:
    headers = message.payload if isinstance(message.payload, dict) else message.headers
    return headers.get("id")


def _is_call(body: Any) -> bool:
    """Whether a body is arguments, keyword arguments and the rest, or a dict of them in Celery's old protocol."""
    if isinstance(body, list) and len(body) == 3:  # noqa: PLR2004
        args, kwargs, embed = body
        return isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embed, (dict, NoneType))
    return isinstance(body, dict) and "args" in body


def _dead_letter(message: Any, reason: str) -> None:
    message.channel.qos.dead_letter(message.delivery_tag, reason)
    message.ack_log_error(logger, message.channel.connection_errors)

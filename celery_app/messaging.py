"""Celery's message layer with the lanes: what is sent to a lane passes here, all else is Celery's own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from celery.app.amqp import AMQP, task_message
from kombu import Queue
from kombu.utils.imports import symbol_by_name

from celery_app.broker.connection import LaneConnection
from celery_app.broker.rules import LANE_NAMES, LaneRules
from celery_app.connections.addresses import DEFAULT_BROKER_URL
from celery_app.connections.lane_connection import hasten, lane_connection
from celery_app.connections.producers import LaneProducers
from celery_app.connections.urls import joined, verified
from celery_app.jobs.announcement import Announcement
from celery_app.jobs.descriptions import describe_message
from celery_app.jobs.headers import PUBLISH_HEADER
from celery_app.jobs.publishing import SUBMIT_WITHIN, new_token, publishing
from celery_app.queues import LaneQueues, names_in
from celery_app.routing import LaneRouter
from celery_app.stand_in import stand_in
from celery_app.tracing import published

logger = logging.getLogger(__name__)

#: One more try, at once: a connection that the server closed while it was idle is found out by the first.
RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}

#: What a job may say of itself in any lane: a pickle from the broker would be code from the broker.
SERIALIZER = "json"

#: What a project hears that had a queue by a lane's name before the lanes came: nobody but the project can rename it.
_TAKEN = (
    "%r is a queue of this application (task_queues, task_default_queue) and a lane: its jobs are JSON, have the "
    "lane's capacity, and wait for a worker that names it after -Q. Give a queue of your own another name."
)


class LaneAMQP(AMQP):
    """Celery's message layer, which knows three queues more.

    Jobs for lanes leave through connections of their own: a web request must not wait for a dead broker as long as a
    project may want its own tasks to. An application's own connections stay as it has configured them.
    """

    queues_cls = LaneQueues

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.rules = LaneRules(app)
        self.lane_producers = LaneProducers(self)

    def Connection(self, hostname: Any = None, *args: Any, **kwargs: Any) -> LaneConnection:  # noqa: N802 - its name
        """Return a connection of the application's own, whose channels know what is a lane."""
        if self.has_only_lanes:
            hostname = hostname or DEFAULT_BROKER_URL  # Celery's own would be a RabbitMQ
            kwargs["ssl"] = kwargs.get("ssl") or verified(joined(hostname)) or None
        connection = LaneConnection(hostname, *args, **kwargs)
        connection.rules = self.rules
        if self.has_only_lanes:
            hasten(connection)
        return connection

    @property
    def has_only_lanes(self) -> bool:
        """Whether the application has no queues of its own; a project's default queue may be called like a lane."""
        return bool(getattr(self.app, "has_only_lanes", False))

    def Queues(self, queues: Any, *args: Any, **kwargs: Any) -> LaneQueues:  # noqa: N802 - Celery's name
        """Return the application's own queues and the lanes."""
        queues, default = _by_name(queues), self.app.conf.task_default_queue
        for name in LANE_NAMES if not self.has_only_lanes else ():
            if name in queues or name == default:
                logger.warning(_TAKEN, name)
        own = {name: queue for name, queue in queues.items() if name not in LANE_NAMES}
        made: LaneQueues = super().Queues(own, *args, **kwargs)
        made.routed = frozenset(names_in(self.app.conf.task_routes))
        if self.has_only_lanes:
            made.serve_lanes()
        elif default in LANE_NAMES:
            made.serve_lanes(default)
        return made

    def TaskConsumer(self, channel: Any, queues: Any = None, accept: Any = None, **kwargs: Any) -> Any:  # noqa: N802
        """Return Celery's consumer; one in a worker for lanes takes what lanes send, whatever else it takes."""
        if accept is None and self.rules.serving:
            accept = list({*self.app.conf.accept_content, SERIALIZER})
        return super().TaskConsumer(channel, queues, accept, **kwargs)

    def flush_routes(self) -> None:
        """Read the application's routes again, and lay the lanes' over them."""
        self._rtable = (LaneRouter(self.rules, self.app.conf.task_routes),)

    def lane_connection(self) -> LaneConnection:
        """Return a connection to the lanes' broker, see `celery_app.connections.lane_connection`."""
        return lane_connection(self)

    @property
    def submit_within(self) -> float | None:
        """Seconds without an answer after which whoever sends a job is told; None: a worker, who has time."""
        return None if self.rules.serving else SUBMIT_WITHIN

    def _create_task_sender(self) -> Any:
        send = super()._create_task_sender()

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            lane_name = _queue_of(options)
            message = describe_message(self.app, message, in_lane=lane_name in LANE_NAMES)
            lane = self.rules.lane(lane_name) if lane_name is not None else None
            if lane is None:
                return send(producer, name, message, **options)
            standing_in = stand_in()
            if standing_in is not None:
                return standing_in.take(self.app, lane, message, options)
            options["serializer"] = SERIALIZER
            own_policy = options.get("retry_policy") or {}
            submit_within = None if own_policy else self.submit_within
            options["retry_policy"] = {**RETRY_POLICY, **own_policy}
            message, announcement = self._announced(message, lane.name)
            with (
                publishing(submit_within, announcement),
                self.lane_producers.instead_of(producer) as own,
                published() as trace,
            ):
                # The token is new with each submission: whoever copies a job's headers does not mean the job itself.
                options["headers"] = {**(options.get("headers") or {}), **trace, PUBLISH_HEADER: new_token()}
                return send(own, name, message, **options)

        return send_task_message

    def _announced(self, message: Any, lane: str) -> tuple[Any, Announcement | None]:
        """Have the job's submission told, whatever the application tells of its own: Flower shows it from then on."""
        headers, properties, body, _ = message
        announcement = Announcement.of(self.app, lane, headers) if headers else None
        return task_message(headers, properties, body, None), announcement


def beside_lanes(amqp_cls: Any) -> Any:
    """Return the message layer with the lanes that keeps what a project's own one does (``Celery(amqp=…)``).

    Args:
        amqp_cls: the project's class, or its name; Celery's, mostly.
    """
    own = symbol_by_name(amqp_cls)
    if issubclass(LaneAMQP, own):
        return LaneAMQP
    if issubclass(own, LaneAMQP):
        return own
    queues = _queues_beside_lanes(own.queues_cls)
    return type("LaneAMQP", (LaneAMQP, own), {"queues_cls": queues, "__module__": __name__})


def _queues_beside_lanes(queues_cls: Any) -> Any:
    if issubclass(LaneQueues, queues_cls):
        return LaneQueues
    return type("LaneQueues", (LaneQueues, queues_cls), {"__module__": __name__})


def _by_name(queues: Any) -> Mapping[str, Any]:
    return queues if isinstance(queues, Mapping) else {queue.name: queue for queue in queues or ()}


def _queue_of(options: dict[str, Any]) -> str | None:
    queue = options.get("queue")
    if queue is None:
        exchange = options.get("exchange")
        return str(getattr(exchange, "name", exchange)) if exchange is not None else None
    return queue.name if isinstance(queue, Queue) else str(queue)

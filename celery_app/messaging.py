"""Celery's message layer with the lanes: what is sent to a lane passes here, all else is Celery's own."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery.app.amqp import AMQP, task_message
from kombu import Queue
from kombu.exceptions import OperationalError
from kombu.pools import ProducerPool

from celery_app.addresses import DEFAULT_BROKER_URL
from celery_app.broker.connection import LaneConnection, LanePooledConnection, verified
from celery_app.broker.rules import LANE_NAMES, LaneRules
from celery_app.descriptions import describe_message
from celery_app.job_keys import PUBLISH_HEADER
from celery_app.publishing import PATIENCE, REPLY_TIMEOUT, new_token, publishing
from celery_app.queues import LaneQueues, names_in
from celery_app.routing import LaneRouter
from celery_app.stand_in import stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds to connect to the broker: a live one on the same network answers in milliseconds.
CONNECT_TIMEOUT = 0.8

#: Seconds that the broker may take to answer a worker: it has nobody to answer to, and a server may be busy saving.
WORKER_REPLY_TIMEOUT = 10.0

#: One more try, at once: a connection that the server closed while it was idle is found out by the first.
RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}

#: Connections of a process at most that jobs leave through, where the application says nothing: Celery's own default.
POOL_LIMIT = 10

#: What a job may say of itself in any lane: a pickle from the broker would be code from the broker.
SERIALIZER = "json"


class LaneAMQP(AMQP):
    """Celery's message layer, which knows three queues more.

    Jobs for lanes leave through connections of their own: a web request must not wait for a dead broker as long as a
    project may want its own tasks to. An application's own connections stay as it has configured them.
    """

    queues_cls = LaneQueues

    def __init__(self, app: Any) -> None:
        """Change nothing that is there already."""
        super().__init__(app)
        self.rules = LaneRules(app)
        self._lane_pool: ProducerPool | None = None
        self._lane_pool_of: Any = None
        self._opening = threading.Lock()

    def Connection(self, url: Any = None, *args: Any, **kwargs: Any) -> LaneConnection:  # noqa: N802 - Celery's name
        """Return a connection of the application's own, whose channels know what is a lane."""
        if not url and self.has_only_lanes:
            url = DEFAULT_BROKER_URL  # Celery's own would be a RabbitMQ
        connection = LaneConnection(url, *args, **kwargs)
        connection.rules = self.rules
        return connection

    @property
    def has_only_lanes(self) -> bool:
        """Whether the application has no queues of its own."""
        return self.app.conf.task_default_queue in LANE_NAMES

    def Queues(self, queues: Any, *args: Any, **kwargs: Any) -> LaneQueues:  # noqa: N802 - Celery's name
        """Return the application's own queues and the lanes."""
        made: LaneQueues = super().Queues(_without_lanes(queues), *args, **kwargs)
        made.routed = frozenset(names_in(self.app.conf.task_routes))
        if self.has_only_lanes:
            made.serve_lanes()
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
        """Return a connection to the lanes' broker, not opened: with the application's options, and short timeouts.

        Raises:
            InvalidSettings: the lanes cannot live at that broker.
        """
        from celery_app.settings import settings_of  # pydantic is not wanted before the first job

        settings = settings_of(self.app)
        settings.check_broker()
        conf, url = self.app.conf, settings.broker_url
        reply_timeout = WORKER_REPLY_TIMEOUT if self.rules.serving else REPLY_TIMEOUT
        timeouts = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": reply_timeout}
        return self.Connection(
            url,
            conf.broker_user,
            conf.broker_password,
            conf.broker_vhost,
            conf.broker_port,
            ssl=conf.broker_use_ssl or verified(url) or None,
            transport_options={**timeouts, **conf.broker_transport_options},
        )

    @contextmanager
    def lane_producer(self, producer: Any) -> Iterator[Any]:
        """Give the producer to send a job for a lane with: one of the lanes' own in place of one out of the pool."""
        connection = producer.connection
        if connection is None:
            raise OperationalError("the connection that the job was to leave through is closed")
        is_pooled = isinstance(connection, LanePooledConnection) and connection.rules is self.rules
        if is_pooled and getattr(producer._batch_local, "current", None) is None:  # noqa: SLF001 - no other way to see it
            with self._lane_producers().acquire(block=True) as own:
                yield own
        else:
            yield producer  # whoever brings a connection, or collects a batch, knows where to

    @property
    def patience(self) -> float | None:
        """Seconds without an answer after which whoever sends a job is told; None: a worker, who has time."""
        return None if self.rules.serving else PATIENCE

    def close_lanes(self) -> None:
        """Close the lanes' own connections."""
        with self._opening:
            pool, self._lane_pool = self._lane_pool, None
        if pool is not None:
            pool.force_close_all()
            pool.connections.force_close_all()

    def _lane_producers(self) -> ProducerPool:
        conf = self.app.conf
        of = (conf.broker_url, repr(conf.broker_transport_options))
        with self._opening:
            if self._lane_pool is None or self._lane_pool_of != of:
                limit = conf.broker_pool_limit or POOL_LIMIT
                self._lane_pool = ProducerPool(self.lane_connection().Pool(limit), limit=limit)
                self._lane_pool_of = of
            return self._lane_pool

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
            # New with each submission: whoever copies a job's headers does not mean the job itself.
            options["headers"] = {**(options.get("headers") or {}), PUBLISH_HEADER: new_token()}
            own_policy = options.get("retry_policy") or {}
            patience = None if own_policy else self.patience
            options["retry_policy"] = {**RETRY_POLICY, **own_policy}
            with publishing(patience), self.lane_producer(producer) as own:
                return send(own, name, _announced(message), **options)

        return send_task_message


def _without_lanes(queues: Any) -> Any:
    """Leave out what a project has declared under a lane's name; the lane's own declaration counts."""
    if isinstance(queues, dict):
        return {name: queue for name, queue in queues.items() if name not in LANE_NAMES}
    return [queue for queue in queues or () if queue.name not in LANE_NAMES]


def _queue_of(options: dict[str, Any]) -> str | None:
    queue = options.get("queue")
    if queue is None:
        exchange = options.get("exchange")
        return str(getattr(exchange, "name", exchange)) if exchange is not None else None
    return queue.name if isinstance(queue, Queue) else str(queue)


def _announced(message: Any) -> Any:
    """Have the job's submission sent as an event: Flower shows it from then on."""
    headers = message.headers
    if message.sent_event is not None or not headers:
        return message
    event = {name: headers.get(name) for name in ("root_id", "parent_id", "retries", "eta", "expires")}
    described = {"name": headers["task"], "args": headers["argsrepr"], "kwargs": headers["kwargsrepr"]}
    return task_message(headers, message.properties, message.body, {"uuid": headers["id"], **described, **event})

"""Broker connections that know the lanes: kombu's own in every respect, until a lane's queue is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu import Connection
from kombu.connection import ConnectionPool, PooledConnection
from kombu.exceptions import OperationalError

from celery_app.connections.urls import MASTER, SENTINEL, SEPARATOR, joined, shown, understood
from celery_app.jobs.publishing import REPLY_TIMEOUT, publishing_now

if TYPE_CHECKING:
    from celery_app.broker.rules import LaneRules

#: The URL's scheme -> the transport; the scheme stays what it is, because Flower and others read it.
_TRANSPORTS = {"redis": "Transport", "rediss": "Transport", SENTINEL: "SentinelTransport"}


class _LaneTransportMixin:
    """Chooses the transport, and carries the lanes' rules to its channels."""

    #: None: a connection without lanes.
    rules: LaneRules | None = None

    def get_transport_cls(self) -> Any:
        """Return the transport's class; it brings redis-py along, so it is imported on the first connection."""
        name = _TRANSPORTS.get(self.transport_cls) if self.rules is not None else None  # type: ignore[attr-defined]
        if name is None:
            return super().get_transport_cls()  # type: ignore[misc]
        from celery_app.broker import transport

        return getattr(transport, name)

    def __eqhash__(self) -> Any:
        """Keep an application without lanes out of our pools: kombu shares them between all applications."""
        return (*super().__eqhash__(), "lanes", id(self.rules))  # type: ignore[misc]


class LanePooledConnection(_LaneTransportMixin, PooledConnection):
    """A connection out of a pool: the one that jobs are published through."""

    def _connection_factory(self) -> Any:
        """Connect, unless whoever waits for a job to be queued would have to wait too long for it.

        Raises:
            kombu.exceptions.OperationalError: that is so; kombu tries no more then.
        """
        submission = publishing_now()
        left = submission.seconds_left()
        if left is not None and left < REPLY_TIMEOUT:
            raise OperationalError("no answer for too long")
        made = super()._connection_factory()
        submission.heard()
        return made


class LaneConnectionPool(ConnectionPool):
    """A pool of connections with the lanes' transports; kombu's own would make them kombu's."""

    def new(self) -> LanePooledConnection:
        """Return one more connection."""
        made = LanePooledConnection(self, **dict(self.connection._info(resolve=False)))
        made.rules = self.connection.rules
        return made


class LaneConnection(_LaneTransportMixin, Connection):
    """kombu's connection with `celery_app.broker.transport`, and URLs as our documentation writes them."""

    def __init__(self, hostname: Any = "localhost", *args: Any, **kwargs: Any) -> None:
        """Take what kombu takes, and ``valkey://`` and ``sentinel://…?master_name=…`` besides."""
        if hostname:
            several = not isinstance(hostname, str)
            hostname, master = understood(joined(hostname))
            hostname = hostname.split(SEPARATOR) if several else hostname
            if master:
                kwargs["transport_options"] = {**(kwargs.get("transport_options") or {}), MASTER: master}
        super().__init__(hostname, *args, **kwargs)

    def clone(self, **kwargs: Any) -> LaneConnection:
        """Return a copy that has the same rules."""
        copy: LaneConnection = super().clone(**kwargs)
        copy.rules = self.rules
        return copy

    def info(self) -> dict[str, Any]:
        """Return what a worker for lanes answers to whoever asks it for its statistics: without a password."""
        info: dict[str, Any] = super().info()
        if self.rules is None or not self.rules.serving:
            return info
        secret = {"hostname": shown(str(info["hostname"])), "alternates": [shown(str(url)) for url in self.alt]}
        return {**info, **secret, "transport_options": _without_passwords(info["transport_options"])}

    def Pool(self, limit: int | None = None, **kwargs: Any) -> LaneConnectionPool:  # noqa: N802 - kombu's name
        """Return a pool of such connections."""
        return LaneConnectionPool(self, limit, **kwargs)


def _without_passwords(options: Any) -> Any:
    if not isinstance(options, dict):
        return options
    return {name: "**" if "password" in str(name) else _without_passwords(value) for name, value in options.items()}

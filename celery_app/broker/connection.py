"""Broker connections that know the lanes: kombu's own in every respect, until a lane's queue is named."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from kombu import Connection
from kombu.connection import ConnectionPool, PooledConnection
from kombu.exceptions import OperationalError

from celery_app.publishing import REPLY_TIMEOUT, publishing_now

if TYPE_CHECKING:
    from celery_app.broker.rules import LaneRules

#: The URL's scheme -> the transport; the scheme stays what it is, because Flower and others read it.
_TRANSPORTS = {"redis": "Transport", "rediss": "Transport", "sentinel": "SentinelTransport"}

#: Valkey speaks Redis' protocol, but kombu does not know its name.
_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}

#: What a Sentinel is asked for; kombu takes it as a transport option only.
MASTER = "master_name"


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
        hostname, masters = _understood(hostname)
        if masters:
            kwargs["transport_options"] = {MASTER: masters[0], **(kwargs.get("transport_options") or {})}
        super().__init__(hostname, *args, **kwargs)

    def clone(self, **kwargs: Any) -> LaneConnection:
        """Return a copy that has the same rules."""
        copy: LaneConnection = super().clone(**kwargs)
        copy.rules = self.rules
        return copy

    def Pool(self, limit: int | None = None, **kwargs: Any) -> LaneConnectionPool:  # noqa: N802 - kombu's name
        """Return a pool of such connections."""
        return LaneConnectionPool(self, limit, **kwargs)


def verified(url: str) -> dict[str, Any]:
    """Return the encryption that a URL asks for: ``rediss://`` is a verified certificate unless it says otherwise."""
    secure = url.startswith(("rediss://", "valkeys://")) and "ssl_" not in url
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED} if secure else {}


def _understood(hostname: Any) -> tuple[Any, list[str]]:
    """Return a URL, or several, in kombu's words, and the masters that they name."""
    if not hostname:
        return hostname, []
    if not isinstance(hostname, str):
        urls = [_understood(each) for each in hostname]
        return [url for url, _ in urls], [master for _, masters in urls for master in masters]
    chunks = [_translated(each) for each in hostname.split(";")]
    return ";".join(url for url, _ in chunks), [master for _, master in chunks if master]


def _translated(url: str) -> tuple[str, str | None]:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    master = query.pop(MASTER, None) if parts.scheme == "sentinel" else None
    if master is None and parts.scheme not in _SCHEMES:
        return url, None
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    return urlunsplit(parts._replace(scheme=scheme, query=urlencode(query))), master

"""Result backends at a Redis by names that Celery does not know, or with the haste of a web request."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from celery.backends import redis as celery_redis

from celery_app.broker.connection import MASTER
from celery_app.messaging import CONNECT_TIMEOUT, WORKER_REPLY_TIMEOUT
from celery_app.publishing import REPLY_TIMEOUT

#: Celery subscribes to a result before it publishes the job, and tries each of these once more by itself.
RETRY_POLICY = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}

#: A worker's results outlive a broker that restarts: Celery's own default, about 20 s.
WORKER_RETRY_POLICY = {"max_retries": 20, "interval_start": 0, "interval_step": 1, "interval_max": 1}


class ValkeyBackend(celery_redis.RedisBackend):
    """Celery's backend for Redis; Valkey speaks the same protocol."""

    def __init__(self, *args: Any, url: str | None = None, **kwargs: Any) -> None:
        """Take a URL by Valkey's name."""
        url = url and url.replace("valkeys://", "rediss://", 1).replace("valkey://", "redis://", 1)
        super().__init__(*args, url=url, **kwargs)


class SentinelBackend(celery_redis.SentinelBackend):
    """Celery's backend for Sentinel, which may be told its master in the URL."""

    _master: str | None = None

    def __init__(self, *args: Any, url: str | None = None, **kwargs: Any) -> None:
        """Take ``sentinel://host:26379/0?master_name=mymaster``."""
        if url:
            chunks = [_without_master(chunk) for chunk in url.split(";")]
            self._master = next((master for _, master in chunks if master), None)
            url = ";".join(chunk for chunk, _ in chunks)
        super().__init__(*args, url=url, **kwargs)

    @property
    def _transport_options(self) -> dict[str, Any]:
        options: dict[str, Any] = super()._transport_options
        return {MASTER: self._master, **options} if self._master else options


class _HastyMixin:
    """Says within seconds that Redis is away; a worker has more patience."""

    app: Any

    @property
    def retry_policy(self) -> dict[str, Any]:
        """How often, and after how long, what failed is tried again."""
        own: dict[str, Any] = super().retry_policy  # type: ignore[misc]
        if "retry_policy" in self.app.conf.result_backend_transport_options:
            return own
        return {**own, **(WORKER_RETRY_POLICY if self.app.amqp.rules.serving else RETRY_POLICY)}

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> Any:
        reply_timeout = WORKER_REPLY_TIMEOUT if self.app.amqp.rules.serving else REPLY_TIMEOUT
        timeouts = {"socket_timeout": reply_timeout, "socket_connect_timeout": CONNECT_TIMEOUT}
        given = {**defaults, **{name: defaults.get(name) or value for name, value in timeouts.items()}}
        if url.startswith("rediss://"):
            given.setdefault("ssl_cert_reqs", ssl.CERT_REQUIRED)
        return super()._params_from_url(url, given)  # type: ignore[misc]


class LaneBackend(_HastyMixin, ValkeyBackend):
    """The results of lane tasks at a Redis or Valkey."""


class LaneSentinelBackend(_HastyMixin, SentinelBackend):
    """The same at whichever server Sentinel names."""


def _without_master(url: str) -> tuple[str, str | None]:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    master = query.pop(MASTER, None)
    return (urlunsplit(parts._replace(query=urlencode(query))), master) if master else (url, None)

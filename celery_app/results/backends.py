"""Result backends at a Redis by names that Celery does not know, or with the haste of a web request."""

from __future__ import annotations

import ssl
from typing import Any

from celery.backends import redis as celery_redis
from kombu.utils.url import parse_ssl_cert_reqs

from celery_app.connections.lane_connection import CONNECT_TIMEOUT, WORKER_REPLY_TIMEOUT, hasty_sentinels
from celery_app.connections.redis_client import connection_pool, shown_url
from celery_app.connections.urls import MASTER, understood
from celery_app.jobs.publishing import REPLY_TIMEOUT

#: Celery subscribes to a result before it publishes the job, and tries each of these once more by itself.
RETRY_POLICY = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}

#: A worker's results outlive a broker that restarts: Celery's own default, about 20 s.
WORKER_RETRY_POLICY = {"max_retries": 20, "interval_start": 0, "interval_step": 1, "interval_max": 1}

#: What the broker's transport options say of Sentinels; it holds for results, too, where nothing else is said of them.
_SENTINELS_OPTIONS = (MASTER, "min_other_sentinels", "sentinel_kwargs")


class _ResultConsumer(celery_redis.ResultConsumer):
    """Closes what it leaves: Celery's own drops all connections of its pool open, until the garbage is collected."""

    def _reconnect_pubsub(self) -> None:
        with self._locked():
            if self._pubsub is not None:
                self._pubsub.close()
            # Not those in use: with `result_backend_thread_safe` another thread may read from one.
            self.backend.client.connection_pool.disconnect(inuse_connections=False)
            super()._reconnect_pubsub()


class ValkeyBackend(celery_redis.RedisBackend):
    """Celery's backend for Redis; Valkey speaks the same protocol."""

    ResultConsumer = _ResultConsumer

    def __init__(self, *args: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, url=url and understood(url).url, **kwargs)
        self.url = url

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> Any:
        """Verify certificates where nobody says otherwise: Celery would refuse to start."""
        if url.startswith("rediss://"):
            defaults = {"ssl_cert_reqs": ssl.CERT_REQUIRED, **defaults}
        return super()._params_from_url(url, defaults)


class SentinelBackend(celery_redis.SentinelBackend):
    """Celery's backend for Sentinel, which may be told its master in the URL."""

    ResultConsumer = _ResultConsumer
    _master: str | None = None

    def __init__(self, *args: Any, url: str | None = None, **kwargs: Any) -> None:
        """Take ``sentinel://host:26379/0?master_name=mymaster``, and several of these that are joined by ``;``."""
        words = understood(url) if url else None
        self._master = words and words.master
        super().__init__(*args, url=words and words.url, **kwargs)
        self.url = url  # a copy, as pickle makes one, is made from it

    @property
    def _transport_options(self) -> dict[str, Any]:
        brokers: dict[str, Any] = self.app.conf.broker_transport_options
        fallback = {name: brokers[name] for name in _SENTINELS_OPTIONS if name in brokers}
        own: dict[str, Any] = super()._transport_options
        return {**fallback, **own, **({MASTER: self._master} if self._master else {})}

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> Any:
        """Read the master's encryption out of the URL, too: Celery does so for ``rediss://`` only."""
        params: dict[str, Any] = super()._params_from_url(url, defaults)
        if any(name.startswith("ssl_") for name in params):
            params["connection_class"] = self.connection_class_ssl
            reqs = params.get("ssl_cert_reqs", "required")
            params["ssl_cert_reqs"] = parse_ssl_cert_reqs(reqs) if isinstance(reqs, str) else reqs
        return params


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
        chosen = {name for name in timeouts if self.app.conf.value_set_for(f"redis_{name}")}
        given = {**defaults, **{name: value for name, value in timeouts.items() if name not in chosen}}
        return super()._params_from_url(url, given)  # type: ignore[misc]


class LaneBackend(_HastyMixin, ValkeyBackend):
    """The results of lane tasks at a Redis or Valkey."""


class LaneSentinelBackend(_HastyMixin, SentinelBackend):
    """The same at whichever server Sentinel names."""

    @property
    def _transport_options(self) -> dict[str, Any]:
        options = super()._transport_options
        serving = self.app.amqp.rules.serving
        return {**options, "sentinel_kwargs": hasty_sentinels(options.get("sentinel_kwargs"), serving=serving)}


class BrokerBackend(_HastyMixin, celery_redis.RedisBackend):
    """The same at the broker, by the very parameters by which jobs go there."""

    ResultConsumer = _ResultConsumer

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app=app, **kwargs)
        self.url = shown_url(app)

    def _get_pool(self, **_: Any) -> Any:
        return connection_pool(self.app.amqp.lane_connection())

"""The lanes' own connections to the broker: with the application's options, and short timeouts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_app.connections.urls import MASTER, SENTINEL, verified
from celery_app.errors import InvalidSettings
from celery_app.jobs.publishing import REPLY_TIMEOUT

if TYPE_CHECKING:
    from celery_app.broker.connection import LaneConnection

#: Seconds to connect to the broker: a live one on the same network answers in milliseconds.
CONNECT_TIMEOUT = 0.8

#: Seconds that the broker may take to answer a worker: it has nobody to answer to, and a server may be busy saving.
WORKER_REPLY_TIMEOUT = 10.0

#: Seconds to connect to a Sentinel, and for its answer: it has nothing else to do. redis-py asks one after the other,
#: so that three mute ones, asked twice, still leave a web request its 3 s.
SENTINEL_TIMEOUT = 0.4


def lane_connection(amqp: Any) -> LaneConnection:
    """Return a connection to the lanes' broker, not opened: with the application's options, and short timeouts.

    Raises:
        InvalidSettings: the lanes cannot live at that broker, or nobody has named Sentinel's master.
    """
    from celery_app.settings import settings_of  # pydantic is not wanted before the first job

    app = amqp.app
    settings = settings_of(app)
    settings.check_broker()
    conf, url = app.conf, settings.broker_url
    reply_timeout = WORKER_REPLY_TIMEOUT if amqp.rules.serving else REPLY_TIMEOUT
    timeouts = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": reply_timeout}
    connection: LaneConnection = amqp.Connection(
        url,
        conf.broker_user,
        conf.broker_password,
        conf.broker_vhost,
        conf.broker_port,
        ssl=conf.broker_use_ssl or verified(url) or None,
        transport_options={**timeouts, **conf.broker_transport_options},
    )
    if connection.transport_cls == SENTINEL and not connection.transport_options.get(MASTER):
        example = "sentinel://localhost:26379/0?master_name=mymaster"
        problem = f"Sentinel is asked for a master by name, as in {example}"
        raise InvalidSettings(problems=f"CELERY_BROKER_URL: {problem}")
    hasten(connection)
    return connection


def hasty_sentinels(options: dict[str, Any] | None, *, serving: bool) -> dict[str, Any]:
    """Return what a Sentinel is connected with: redis-py would ask a dead one four times, with seconds in between.

    Args:
        options: ``sentinel_kwargs`` as somebody has set it.
        serving: whether a worker for lanes asks.
    """
    seconds = REPLY_TIMEOUT if serving else SENTINEL_TIMEOUT
    return {"socket_connect_timeout": seconds, "socket_timeout": seconds, "retry": None, **(options or {})}


def hasten(connection: LaneConnection) -> None:
    """Have a connection that is not open yet lose no time at Sentinels that are dead."""
    if connection.transport_cls == SENTINEL:
        options = connection.transport_options
        serving = connection.rules is not None and connection.rules.serving
        options["sentinel_kwargs"] = hasty_sentinels(options.get("sentinel_kwargs"), serving=serving)

"""What a Celery application has to be configured with for its lanes to hold."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from celery.app.backends import by_url
from kombu import Queue

from celery_app.errors import InvalidSettings
from celery_app.routing import LaneRouter, lane_queue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from celery_app.settings import Settings

#: Slots of a worker that was given no ``-c``. A slot waits for the API nearly all of its time, so there can be many
#: more of them than cores.
DEFAULT_CONCURRENCY = 20

#: Seconds to connect to the broker: a live one on the same network answers in milliseconds.
CONNECT_TIMEOUT = 0.8

#: Seconds that the broker may take to answer a command: a web request that finds it mute has 3 s to say so. A worker
#: has more patience, see worker.py.
REPLY_TIMEOUT = 1.4

#: One more try, at once: a connection that the server closed while it was idle is found out by the first.
RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}

#: Celery subscribes to a result before it publishes the job, and tries each of these once more by itself.
BACKEND_RETRY_POLICY = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}

#: What the lanes need to keep their promise, whatever the project's own configuration says.
REQUIRED = {
    "accept_content": ["json"],  # a pickle from the broker would be code from the broker
    "result_accept_content": ["json"],
    "result_serializer": "json",
    "task_acks_late": True,  # a job belongs to the broker until it is done
    "task_create_missing_queues": False,  # queue="critcal" has to fail, not to wait for a worker that never comes
    "task_reject_on_worker_lost": True,  # a pool process that was killed has not done its job
    "task_serializer": "json",
    "worker_consumer": "celery_app.broker.consumer:LaneConsumer",
    "worker_prefetch_multiplier": 1,  # a fetched job is in a slot, never in a worker's memory behind one
}

#: What suits LLM calls; a project's own value stays.
DEFAULTS = {
    "broker_connection_max_retries": None,  # a worker outlives its broker's restart
    "broker_connection_retry_on_startup": True,
    "redis_socket_connect_timeout": CONNECT_TIMEOUT,
    "redis_socket_timeout": REPLY_TIMEOUT,
    "result_backend_transport_options": {"retry_policy": BACKEND_RETRY_POLICY},  # the default takes 20 s to give up
    "task_publish_retry_policy": RETRY_POLICY,
    "task_send_sent_event": True,  # Flower shows a job from its submission on
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_concurrency": DEFAULT_CONCURRENCY,
    "worker_pool": "threads",  # the one pool that fills slots at once and loses nothing on SIGTERM or SIGQUIT
    "worker_send_task_events": True,
}


def configure(app: Celery, settings: Settings, default_queue: str | None) -> None:
    """Set what the lanes need on a loaded configuration, and what they suggest where the project says nothing."""
    conf = app.conf
    defaults = {**DEFAULTS, **_encryption(settings)}
    override(app, {key: value for key, value in defaults.items() if not conf.value_set_for(key)})
    if default_queue:
        override(app, {"task_default_queue": default_queue})
    override(app, REQUIRED)
    override(app, _required_of(conf, settings))
    app.loader.override_backends = {**app.loader.override_backends, "valkey": "celery.backends.redis:RedisBackend"}
    app.backend_cls = _checked_backend(app, _redis_url(settings.result_backend))
    # Whoever asks for the backend first has read the line above before this configuration was loaded.
    override(app, {"result_backend": app.backend_cls})


def override(app: Celery, values: Mapping[str, Any]) -> None:
    """Set configuration so that it wins: Celery asks for a namespaced name before the plain one."""
    prefix = f"{app.namespace.rstrip('_')}_" if app.namespace else ""
    for key, value in values.items():
        name = f"{prefix}{key}"
        app.conf.update({key: value, name.upper() if prefix.isupper() else name: value})


def _required_of(conf: Any, settings: Settings) -> dict[str, Any]:
    """Return what the lanes need and the settings decide."""
    lanes = {lane.name: {"capacity": lane.capacity, "submit_wait": lane.submit_wait} for lane in settings.lanes}
    return {
        "broker_read_url": _redis_url(settings.broker_url),
        "broker_write_url": _redis_url(settings.broker_url),
        "broker_transport_options": {
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_timeout": REPLY_TIMEOUT,
            **conf.broker_transport_options,
            **_sentinel_options(conf, settings),
            "lanes": lanes,
        },
        "include": list(dict.fromkeys(["tasks", *(conf.include or ())])),
        "task_queues": [*map(lane_queue, settings.lanes), *_other_queues(conf, settings)],
        "task_routes": [LaneRouter(settings.lanes, conf.task_routes)],
    }


def _redis_url(url: str) -> str:
    """Valkey speaks Redis' protocol, but neither Celery nor kombu knows its name."""
    return url.replace("valkey://", "redis://", 1)


def _checked_backend(app: Celery, url: str) -> str:
    """Find out now, and not with the first job, whether there is such a result backend."""
    try:
        by_url(url, app.loader)
    except Exception as exc:
        reason = " ".join(str(exc).split())
        raise InvalidSettings(problems=f"CELERY_RESULT_BACKEND: no such backend ({reason[:120]})") from exc
    return url


def _sentinel_options(conf: Any, settings: Settings) -> dict[str, Any]:
    """Return the name of the master that Sentinel is asked for: from the URL, or the project's transport options."""
    if not settings.broker_url.startswith("sentinel://"):
        return {}
    query = dict(parse_qsl(urlsplit(settings.broker_url.split(";", 1)[0]).query))
    master = query.get("master_name") or conf.broker_transport_options.get("master_name")
    if not master:
        problem = "Sentinel has to be told a master, as in sentinel://host:26379/0?master_name=mymaster"
        raise InvalidSettings(problems=f"CELERY_BROKER_URL: {problem}")
    return {"master_name": master}


def _other_queues(conf: Any, settings: Settings) -> list[Queue]:
    """Return the project's own queues: those it declared, and the default queue that Celery would have made."""
    declared = conf.task_queues or ()
    if isinstance(declared, dict):
        declared = [Queue.from_dict(name, **{"routing_key": name, **options}) for name, options in declared.items()]
    queues = [queue for queue in declared if settings.lane(queue.name) is None]
    default = conf.task_default_queue
    if settings.lane(default) is None and default not in {queue.name for queue in queues}:
        queues.append(Queue(default, routing_key=default))
    return queues


def _encryption(settings: Settings) -> dict[str, Any]:
    """``rediss://`` means a verified certificate unless the URL says otherwise; kombu would not even encrypt."""
    required = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    urls = {"broker_use_ssl": settings.broker_url, "redis_backend_use_ssl": settings.result_backend}
    return {key: required for key, url in urls.items() if url.startswith("rediss://") and "ssl_" not in url}

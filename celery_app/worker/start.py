"""The start of a worker that serves a lane: what it needs is set, what would break the lanes is refused.

A worker that serves no lane is Celery's own: nothing here touches it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from celery import bootsteps
from celery.concurrency import get_implementation
from click.core import ParameterSource

from celery_app.broker.rules import LANE_NAMES
from celery_app.configuration.overriding import override
from celery_app.connections.lane_connection import hasty_sentinels
from celery_app.connections.urls import SENTINEL, joined, verified
from celery_app.errors import UnsupportedWorker
from celery_app.jobs.limits import limited_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

logger = logging.getLogger(__name__)

#: Slots of a worker that was given no ``-c``. A slot waits for the API nearly all of its time, so there can be many
#: more of them than cores.
DEFAULT_CONCURRENCY = 20

#: The one pool that fills slots at once and loses nothing on SIGTERM or SIGQUIT.
DEFAULT_POOL = "threads"

#: Broker connections beside the one that each slot may hold while it acknowledges: claiming, listening, events,
#: heartbeats, and as many again for reconnects.
SPARE_CONNECTIONS = 10

#: Pools that neither hand jobs back after a kill nor fill a freed slot at once.
REFUSED_POOLS = {
    "gevent": "its jobs are stranded when it is killed and lost on SIGQUIT, and freed slots wait up to 2 s",
    "eventlet": "it is out of maintenance and loses jobs as gevent does",
}

#: Pools that cannot interrupt a job.
_POOLS_WITHOUT_TIME_LIMITS = ("thread", "solo")


def look_after_workers(app: Any) -> None:
    """Check and prepare every worker of this application that serves a lane, before it starts."""
    app.steps["worker"].add(LaneWorker)
    app.steps["worker"].add("celery_app.stopping.stopper:Stopper")
    app.steps["worker"].add("celery_app.worker.presence:Presence")  # by name: it brings redis-py along
    # By name: the core imports no task.
    app.steps["worker"].add("tasks.warmup:WarmUp")
    app.steps["worker"].add("tasks.ended:EndedJobs")
    app.steps["consumer"].add("celery_app.worker.remote_limits:RemoteLimits")


def lanes_of(worker: Any) -> list[str]:
    """Return the lanes that a worker serves."""
    served = worker.app.amqp.queues.consume_from
    return [name for name in LANE_NAMES if name in served]


class LaneWorker(bootsteps.Step):
    """The step of a worker's start that is about lanes."""

    name = "lanes"

    def __init__(self, worker: Any, **options: Any) -> None:
        """Refuse a worker that cannot keep the lanes' promise; prepare any other that serves one."""
        if lanes_of(worker):
            _prepare(worker, options)
            reason = next(_objections(worker, options), None)
            if reason:
                raise UnsupportedWorker(reason=reason)
            _prepare_process(worker.app, worker.concurrency)
        super().__init__(worker, **options)


def _prepare(worker: Any, options: Mapping[str, Any]) -> None:
    """Set what the command line leaves open; a project's settings are for the workers of its own queues."""
    conf = worker.app.conf
    if not _is_chosen("pool", options):
        worker.pool_cls = get_implementation(DEFAULT_POOL)
    if not (_is_chosen("concurrency", options) or conf.value_set_for("worker_concurrency")):
        # The second is what the pool is made with, where Celery has read the first already.
        worker.concurrency = worker.min_concurrency = DEFAULT_CONCURRENCY
    if not _is_chosen("prefetch_multiplier", options):
        worker.prefetch_multiplier = 1  # a fetched job is in a slot, never in a worker's memory behind one
    if not (_is_chosen("task_events", options) or conf.value_set_for("worker_send_task_events")):
        worker.task_events = True  # Flower shows what happens
    if _ignores_time_limits(worker.pool_cls):
        _leave_out_time_limits(worker, options)
    worker.consumer_cls = "celery_app.broker.consumer:LaneConsumer"


def _leave_out_time_limits(worker: Any, options: Mapping[str, Any]) -> None:
    for name in ("time_limit", "soft_time_limit"):
        if getattr(worker, name) and not _is_chosen(name, options):
            setattr(worker, name, None)
            logger.warning("task_%s does not hold in this worker, threads cannot be interrupted", name)


def _is_chosen(name: str, options: Mapping[str, Any]) -> bool:
    """Say whether whoever starts the worker has said something, on the command line or as an argument."""
    from celery.bin.worker import worker as celery_worker  # a web process has no use for it

    context = click.get_current_context(silent=True)
    # By the command itself: a project may have one by the same name, ``flask worker``, that makes a worker in Python.
    if context is not None and context.command is celery_worker:
        return context.get_parameter_source(name) in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}
    return options.get(name) is not None or (name == "pool" and options.get("pool_cls") is not None)


def _objections(worker: Any, options: Mapping[str, Any]) -> Iterator[str]:
    pool = _pool_name(worker.pool_cls)
    for name, reason in REFUSED_POOLS.items():
        if name in pool:
            yield f"the pool {name} is not supported for lanes, {reason}; leave out -P to use threads"
    if options.get("autoscale"):
        yield "--autoscale stops a worker on threads; scale by starting more workers, as in --scale worker-shared=4"
    if _ignores_time_limits(worker.pool_cls) and (worker.time_limit or worker.soft_time_limit):
        yield f"the pool {pool} ignores task time limits; set LANES_<LANE>_CALL_TIMEOUT and LANES_<LANE>_DEADLINE"
    own = [name for name in worker.app.amqp.queues.consume_from if name not in LANE_NAMES]
    if own and _place(worker.app.conf.broker_read_url) != _place(worker.app.conf.broker_write_url):
        yield (
            f"broker_read_url leads elsewhere than broker_write_url, where the lanes are; "
            f"give {', '.join(own)} a worker of their own"
        )
    if worker.prefetch_multiplier != 1:
        yield "a prefetch multiplier other than 1 lets jobs wait in the worker's memory, where no lane overtakes them"
    yield from limited_tasks(worker.app, threads=_ignores_time_limits(worker.pool_cls))
    from celery_app.settings import settings_of  # pydantic is not wanted before the first job

    settings = settings_of(worker.app)
    worker.app.amqp.lane_connection()  # says what is wrong with the broker's address
    served = [lane for lane in settings.lanes if lane.name in lanes_of(worker)]
    without_key = [lane.name for lane in served if settings.api_key(lane) is None]
    if without_key:
        yield f"there is no API key for {', '.join(without_key)}; set EZAI_API_KEY"


def _place(urls: Any) -> list[tuple[Any, ...]]:
    """Where a broker is, or several are, whoever connects to it."""
    parts = [urlsplit(url) for url in (urls.split(";") if isinstance(urls, str) else urls or ())]
    return [(each.scheme, each.netloc.rpartition("@")[2], each.path.strip("/") or "0") for each in parts]


def _ignores_time_limits(pool: Any) -> bool:
    return any(name in _pool_name(pool) for name in _POOLS_WITHOUT_TIME_LIMITS)


def _pool_name(pool: Any) -> str:
    """``threads``, ``celery.concurrency.thread:TaskPool`` or the class itself."""
    return pool if isinstance(pool, str) else pool.__module__.rpartition(".")[2]


def _prepare_process(app: Any, slots: int) -> None:
    """Make this process one that serves lanes: its connections, its results, its figures."""
    from celery_app.metrics.startup import record  # these bring redis-py along
    from celery_app.results.retry import keep_results

    app.amqp.rules.serving = True
    _ready_connections(app, slots)
    keep_results(app)
    record(app)


def _ready_connections(app: Any, slots: int) -> None:
    """A slot without a connection cannot acknowledge, and stays taken for good."""
    options = dict(app.conf.broker_transport_options)
    options["max_connections"] = max(options.get("max_connections", 0), slots + SPARE_CONNECTIONS)
    url = joined(app.conf.broker_read_url)
    if url.startswith(f"{SENTINEL}://"):
        options["sentinel_kwargs"] = hasty_sentinels(options.get("sentinel_kwargs"), serving=True)
    override(
        app, {"broker_transport_options": options, "broker_pool_limit": max(app.conf.broker_pool_limit or 0, slots)}
    )
    if not app.conf.broker_use_ssl and (encryption := verified(url)):
        override(app, {"broker_use_ssl": encryption})  # kombu would trust anybody
    outlives = {"broker_connection_max_retries": None, "broker_connection_retry_on_startup": True}
    override(app, {key: value for key, value in outlives.items() if not app.conf.value_set_for(key)})

"""A worker's start: what it needs is set, what would break the lanes is refused with the reason."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from celery_app.configuration import override
from celery_app.errors import UnsupportedWorker
from celery_app.task_limits import limited_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Broker connections beside the one that each slot may hold while it acknowledges: claiming, listening, events,
#: heartbeats, and as many again for reconnects.
SPARE_CONNECTIONS = 10

#: Seconds that the broker may take to answer a worker: it has nobody to answer to, and a server may be busy saving.
WORKER_REPLY_TIMEOUT = 10.0

#: A worker's results outlive a broker that restarts: Celery's own default, about 20 s.
WORKER_RETRY_POLICY = {"max_retries": 20, "interval_start": 0, "interval_step": 1, "interval_max": 1}

#: Pools that neither hand jobs back after a kill nor fill a freed slot at once.
REFUSED_POOLS = {
    "gevent": "its jobs are stranded when it is killed and lost on SIGQUIT, and freed slots wait up to 2 s",
    "eventlet": "it is out of maintenance and loses jobs as gevent does",
}

#: Pools that cannot interrupt a job.
_POOLS_WITHOUT_TIME_LIMITS = ("thread", "solo")


def look_after_workers(app: Any) -> None:
    """Check and size every worker of this application before it starts."""
    app.steps["worker"].add(LaneWorker)
    # By name: the core imports no task.
    app.steps["worker"].add("tasks.warmup:WarmUp")
    app.steps["consumer"].add("celery_app.remote_limits:RemoteLimits")


class LaneWorker(bootsteps.Step):
    """The step of a worker's start that is about lanes."""

    name = "lanes"

    def __init__(self, worker: Any, **options: Any) -> None:
        """Refuse a worker that cannot keep the lanes' promise; size the connections of any other."""
        reason = next(_objections(worker, options), None)
        if reason:
            raise UnsupportedWorker(reason=reason)
        _ready_connections(worker.app, worker.concurrency)
        from celery_app.patience import keep_results  # brings redis-py along

        keep_results(worker.app)
        # At DEBUG it would write each job's arguments into the log, and these are the prompt.
        logging.getLogger("celery.pool").setLevel(logging.INFO)
        super().__init__(worker, **options)


def _objections(worker: Any, options: Mapping[str, Any]) -> Iterator[str]:
    pool = _pool_name(worker.pool_cls)
    for name, reason in REFUSED_POOLS.items():
        if name in pool:
            yield f"the pool {name} is not supported, {reason}; leave out -P to use threads"
    if options.get("autoscale"):
        yield "--autoscale stops a worker on threads; scale by starting more workers, as in --scale worker-shared=4"
    if any(name in pool for name in _POOLS_WITHOUT_TIME_LIMITS) and (worker.time_limit or worker.soft_time_limit):
        yield f"the pool {pool} ignores task time limits; set LANES_<LANE>_CALL_TIMEOUT and LANES_<LANE>_DEADLINE"
    if worker.prefetch_multiplier != 1:
        yield "a prefetch multiplier other than 1 lets jobs wait in the worker's memory, where no lane overtakes them"
    settings = worker.app.lanes_settings
    served = [lane for lane in settings.lanes if lane.name in worker.app.amqp.queues.consume_from]
    if served:
        yield from limited_tasks(worker.app, threads=any(name in pool for name in _POOLS_WITHOUT_TIME_LIMITS))
    without_key = [lane.name for lane in served if settings.api_key(lane) is None]
    if without_key:
        yield f"there is no API key for {', '.join(without_key)}; set EZAI_API_KEY"


def _pool_name(pool: Any) -> str:
    """``threads``, ``celery.concurrency.thread:TaskPool`` or the class itself."""
    return pool if isinstance(pool, str) else pool.__module__.rpartition(".")[2]


def _ready_connections(app: Any, slots: int) -> None:
    """A slot without a connection cannot acknowledge, and stays taken for good."""
    options = dict(app.conf.broker_transport_options)
    options["socket_timeout"] = max(options.get("socket_timeout", 0), WORKER_REPLY_TIMEOUT)
    options["max_connections"] = max(options.get("max_connections", 0), slots + SPARE_CONNECTIONS)
    pool_limit = max(app.conf.broker_pool_limit or 0, slots)
    backend = {**app.conf.result_backend_transport_options, "retry_policy": WORKER_RETRY_POLICY}
    override(app, {"broker_transport_options": options, "broker_pool_limit": pool_limit})
    override(app, {"result_backend_transport_options": backend, "redis_socket_timeout": WORKER_REPLY_TIMEOUT})

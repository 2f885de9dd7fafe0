"""One look at all lanes, in one round trip: where their jobs are, what they wait for, what happened to the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_app.broker.lane_stats import LaneStats, lane_stats_call, lane_stats_of
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.controls.control import Control, controls_of
from celery_app.keys import CONTROLS, SHUT
from celery_app.metrics.shortage import Shortage, explain_arguments, lane_arguments
from celery_app.metrics.spent import Spent, spent_arguments, spent_of
from celery_app.metrics.store import RECALL, LaneActivity, activities, ask
from celery_app.metrics.tenants import tenants_arguments
from celery_app.scheduler.scripts import DEMAND, EXPLAIN, LEVELS, SERVING, SPENT, STATS, TENANTS
from celery_app.script import run_together
from celery_app.settings import settings_of
from celery_app.worker.presence import serving_call

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from redis.client import Pipeline

_US_PER_S = 1_000_000


@dataclass(frozen=True, slots=True)
class LaneLook:
    """What a lane looks like.

    Attributes:
        place: where its jobs are.
        workers: that serve it.
        slots: of these workers; they may be for other lanes, too.
        head: what the job that is next waits for.
        happened: to its jobs.
    """

    place: LaneStats
    workers: int
    slots: int
    head: Shortage
    happened: LaneActivity


@dataclass(frozen=True, slots=True)
class Look:
    """What all lanes look like.

    Attributes:
        now: seconds since the epoch, by Redis' clock.
        lanes: by name, most important first.
        workers: that serve any.
        slots: of all workers.
        controls: what operators have set.
        shut: the budgets that the API has shut, as `celery_app.budget.shut.shut_of` takes them.
        demand: the reply of ``scheduler/scripts/demand.lua``; None: nobody asked for it.
        levels: the same of ``levels.lua``.
        tenants: the same of ``tenants.lua``.
        spent: today; None: there are no prices.
    """

    now: float
    lanes: dict[str, LaneLook]
    workers: int
    slots: int
    controls: list[Control]
    shut: dict[bytes, bytes]
    demand: Any
    levels: Any
    tenants: Any
    spent: Spent | None = None


def look(
    app: Any,
    counts_window: float,
    waits_window: float,
    *,
    budgets: bool = False,
    tenants: Iterable[str] | None = None,
) -> Look:
    """Look at all lanes.

    Args:
        app: a Celery application with lanes.
        counts_window: seconds that the counts of what happened lately are taken from.
        waits_window: the same for the waits.
        budgets: whether to read the budgets, too, and how much of the backlog they hold up.
        tenants: those that had the most jobs the last time, if the tenants are to be looked at; None: they are not.

    Raises:
        BrokerUnreachable: if no broker answers.
        InvalidSettings: if the environment is wrong.
    """
    settings, prefix = settings_of(app), key_prefix(app)
    lanes, names = settings.lanes, [lane.name for lane in settings.lanes]
    scripts = (SERVING, EXPLAIN, STATS, RECALL, *((DEMAND, LEVELS) if budgets else ()), SPENT, TENANTS)

    def fill(pipe: Pipeline) -> None:
        SERVING.add_to(pipe, *serving_call(names, prefix))
        pipe.hgetall(SHUT.of(prefix))
        pipe.hgetall(CONTROLS.of(prefix))
        pipe.time()
        EXPLAIN.add_to(pipe, (), explain_arguments(prefix, lanes))
        STATS.add_to(pipe, *lane_stats_call(lanes, prefix))
        ask(pipe, prefix, names, counts_window, waits_window)
        if budgets:
            DEMAND.add_to(pipe, (), [prefix, *lane_arguments(lanes)])
            LEVELS.add_to(pipe, (), [prefix])
        if settings.prices:
            SPENT.add_to(pipe, (), spent_arguments(settings, prefix))
        if tenants is not None:
            TENANTS.add_to(pipe, (), tenants_arguments(prefix, names, tenants))

    with broker_errors(app):
        answers = run_together(redis_client(app), scripts, fill)
    crowd = answers.pop() if tenants is not None else None
    spent = spent_of(answers.pop()) if settings.prices else None
    levels, demand = (answers.pop(), answers.pop()) if budgets else (None, None)
    served, shut, fields, (seconds, micros), heads, places, *rest = answers
    *served, (workers, slots) = served
    happened = activities(names, rest)
    short = [Shortage.of(head, settings.time_zone) for head in heads]
    seen = _seen(lane_stats_of(lanes, places), served, short, happened)
    now = seconds + micros / _US_PER_S
    return Look(now, seen, workers, slots, controls_of(fields, now), shut, demand, levels, crowd, spent)


def _seen(
    places: Mapping[str, LaneStats],
    served: Sequence[Any],
    heads: Sequence[Shortage],
    happened: Mapping[str, LaneActivity],
) -> dict[str, LaneLook]:
    return {
        name: LaneLook(place, serving, room, head, happened[name])
        for (name, place), (serving, room), head in zip(places.items(), served, heads, strict=True)
    }

"""All that `lanes top` shows, as one dict for each look; what has to be remembered between two looks is here."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from celery_app.budget.levels import Budgets
from celery_app.controls.control import pauses_of
from celery_app.metrics.advice import Adviser
from celery_app.metrics.backlog import Backlog
from celery_app.metrics.distribution import WAITS
from celery_app.metrics.look import look
from celery_app.metrics.stats import THROUGHPUT_WINDOW, WAIT_WINDOW, lane_figures, lane_money, money
from celery_app.metrics.tenants import Crowd
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_app.controls.control import Control
    from celery_app.metrics.look import Look

#: Seconds that the wait of the moment is taken from. Workers write their figures once a second, not when we look.
_MOMENT = 3.0


#: Of the calls in flight a lane leaves this part of its floor free (scheduler/scripts/lib/calls.lua).
CALLS_FLOOR = 0.2


class Overview:
    """Looks at the lanes of an application, again and again."""

    def __init__(self, app: Any, command: str) -> None:
        """Take an application with lanes, and how its commands begin: ``celery -A proj``; nothing connects yet."""
        self._app, self._command = app, command
        self._backlog = Backlog()
        self._waits: deque[tuple[float, dict[str, tuple[int, float]]]] = deque()
        self._known: list[str] = []

    def look(self) -> dict[str, Any]:
        """Look at all lanes, in one round trip.

        Returns:
            ``at`` (seconds since the epoch, by Redis' clock), ``workers``, ``slots``, ``tenants_left_out`` and
            ``models_left_out``, which are numbers; ``tenants`` with the most jobs queued (``tenant``, ``lane``,
            ``jobs``); ``budgets``, one for each dimension (``lanes``, ``family``, ``model``, ``dimension``, ``level``,
            ``capacity``, ``limit`` per minute, or for ``calls`` None; ``floors``: lane -> units that it leaves for the
            lanes above; ``shut``, ``shut_s``); and ``lanes``: name -> what `get_queue_stats` tells of it, but
            ``waiting_for`` with ``kind``, ``words`` and ``advice`` of each reason, and ``workers``, ``slots``,
            ``slots_wanted``, ``wait_now_s`` (mean of those that left in the last 3 s; None: none has), ``paused`` and
            ``draining`` (who, since when, for how long).

        Raises:
            BrokerUnreachable: if no broker answers.
            InvalidSettings: if the environment is wrong.
        """
        found = look(self._app, THROUGHPUT_WINDOW, WAIT_WINDOW, budgets=True, tenants=self._known)
        budgets, wanted = Budgets.of(found.levels), self._backlog.slots_wanted(found)
        adviser, waits = Adviser(found, budgets, wanted, self._command), self._waits_now(found)
        crowd = Crowd.of(found.lanes, found.tenants)
        self._known = list({each.tenant: None for each in crowd.most})
        return {
            "at": found.now,
            "workers": found.workers,
            "slots": found.slots,
            "lanes": {
                name: lane_figures(lane)
                | lane_money(found, name)
                | {"workers": lane.workers, "slots": lane.slots, "slots_wanted": wanted[name]}
                | {"wait_now_s": waits[name], "waiting_for": adviser.waiting(name)}
                | {"paused": _told(pauses_of(found.controls, name)), "draining": _told(_drains(found, name))}
                for name, lane in found.lanes.items()
            },
            "budgets": _budgets(budgets, self._floors(found.controls)),
            "models_left_out": budgets.left_out,
            "tenants": [each._asdict() for each in crowd.most],
            "tenants_left_out": crowd.left_out,
            **money(found),
        }

    def _waits_now(self, found: Look) -> dict[str, float | None]:
        """Return the mean wait of what left since a moment ago, lane by lane."""
        totals = {name: lane.happened.totals for name, lane in found.lanes.items()}
        now = {name: (WAITS.number(each), WAITS.total(each)) for name, each in totals.items()}
        while len(self._waits) > 1 and found.now - self._waits[1][0] >= _MOMENT:
            self._waits.popleft()
        before = self._waits[0][1] if self._waits else now
        self._waits.append((found.now, now))
        return {name: _mean(*now[name], *before[name]) for name in now}

    def _floors(self, controls: list[Control]) -> dict[str, float]:
        """Return lane -> the fraction of a budget that it leaves for the lanes above."""
        floors = {lane.name: lane.floor for lane in settings_of(self._app).lanes}
        set_now = {each.name: each.value for each in controls if (each.kind, each.field) == ("lane", "floor")}
        return floors | {lane: value for lane, value in set_now.items() if value is not None}


def _mean(number: int, total: float, number_before: int, total_before: float) -> float | None:
    """Fewer than before: somebody has deleted the figures."""
    return (total - total_before) / (number - number_before) if number > number_before else None


def _drains(found: Look, lane: str) -> list[Control]:
    return [each for each in found.controls if (each.kind, each.name) == ("drain", lane)]


def _told(controls: list[Control]) -> list[dict[str, Any]]:
    return [{"models": each.field, "by": each.by, "age_s": each.age_s, "left_s": each.left_s} for each in controls]


def _budgets(budgets: Budgets, floors: Mapping[str, float]) -> list[dict[str, Any]]:
    states = {state[:2]: state for state in budgets.states}
    rows = [each._asdict() for each in budgets.levels]
    rows += [
        {"lanes": each.lanes, "family": each.family, "model": "", "dimension": "calls", "limit": None}
        | {"level": each.most - each.in_flight, "capacity": each.most}
        for each in budgets.states
        if each.most
    ]
    for row in rows:
        state = states.get((row["lanes"], row["family"]))
        row |= {"shut": state.shut if state else "", "shut_s": state.shut_s if state else 0.0}
        row["lanes"] = row["lanes"].split(",")
        part = row["capacity"] * (CALLS_FLOOR if row["dimension"] == "calls" else 1)
        row["floors"] = {lane: floors[lane] * part for lane in row["lanes"] if lane in floors}
    return sorted(rows, key=lambda row: (row["family"], row["lanes"], row["model"]))

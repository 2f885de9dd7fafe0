"""What to do about a reason why jobs wait: in plain words, with the number and the command in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_app.budget.levels import OTHER, shown_name
from celery_app.budget.variant import fits
from celery_app.configuration.variables import NANODOLLARS
from celery_app.controls.fields import FIELDS
from celery_app.metrics.histogram import quantile
from celery_app.metrics.reasons import Reason, lane_reasons
from celery_app.metrics.shortage import DIMENSIONS
from celery_app.metrics.slots import TARGETS
from celery_app.worker.start import DEFAULT_CONCURRENCY

if TYPE_CHECKING:
    from celery_app.budget.levels import Budgets, BudgetState, Level
    from celery_app.budget.quota import Quota
    from celery_app.metrics.look import Look
    from celery_app.metrics.shortage import Shortage

#: Dimension -> the field of `lanes limits set` that raises it.
RAISED_BY = {"requests": "rpm", "input_tokens": "itpm", "output_tokens": "otpm", "calls": "concurrency"}
RAISED_BY |= {"requests_day": "rpd", "input_tokens_day": "itpd", "output_tokens_day": "otpd"}

_MS_PER_S = 1_000


class Adviser:
    """Advises on the lanes of one look."""

    def __init__(self, found: Look, budgets: Budgets, wanted: dict[str, int], command: str) -> None:
        """Take what is known.

        Args:
            found: the look.
            budgets: their levels.
            wanted: lane -> slots beyond the busy ones.
            command: how the lanes' commands begin: ``celery -A proj``.
        """
        self._found, self._budgets, self._wanted, self._command = found, budgets, wanted, command

    def waiting(self, name: str) -> list[dict[str, str]]:
        """Return for what the jobs of a lane wait: for each reason its ``kind`` and ``words``, and ``advice``."""
        lane, reasons = self._found.lanes[name], lane_reasons(self._found, name)
        if lane.place.depth and not reasons:
            workers = f"{lane.workers} worker{'s'[: lane.workers > 1]}"
            reasons.append(Reason("slots", f"a slot of its {workers}; {lane.place.in_flight:,} jobs are in slots"))
        if lane.place.returning:
            reasons.append(Reason("time", f"their time, {lane.place.returning:,} of its jobs"))
        return [{**each._asdict(), "advice": self.on(each, self._head(name))} for each in reasons]

    def on_dead(self, name: str) -> str | None:
        """Return what to do about the dead letters of a lane; None: it has none."""
        return self.on(Reason("dead", ""), self._head(name)) if self._found.lanes[name].place.dead else None

    def on(self, reason: Reason, short: Shortage) -> str:
        """Return what to do about a reason, of a lane's next job or of a job that is short of something."""
        lane, command = short.lane, self._command
        if reason.kind == "budget":
            return self._on_budget(short)
        if reason.kind == "no_worker":
            slots = max(DEFAULT_CONCURRENCY, self._wanted[lane])
            return f"start one: {self._start(lane, slots)}"
        if reason.kind == "slots":
            return self._on_slots(lane)
        if reason.kind == "cap" and short.quota is not None:
            return self._on_cap(short.quota)
        return {
            "paused": f"end it now: {command} lanes resume {lane}",
            "account": "put the account in order, or set another key and restart the workers; what failed: "
            f"{command} lanes dead list --lane {lane}",
            "shut": "nothing, a job now and then probes it; if it stays shut, look at what the API says",
            "overloaded": "nothing, it gets faster with each call that is answered; more workers would not help",
            "prefix": "nothing, its prompt is then read from the API's cache, which counts for no limit",
            "time": "nothing; after a failure the workers' log has its reason",
            "dead": f"see why, then put them back: {command} lanes dead list --lane {lane}",
        }[reason.kind]

    def _head(self, name: str) -> Shortage:
        """A lane without a job is none of the script's."""
        return self._found.lanes[name].head._replace(lane=name)

    def _start(self, lane: str, slots: int) -> str:
        return f"{self._command} worker -Q {lane} -n {lane}@%h -c {slots}"

    def _on_slots(self, lane: str) -> str:
        happened, wanted = self._found.lanes[lane].happened, self._wanted[lane]
        p99 = quantile(happened.waits.buckets, 0.99)
        seen = f"{lane} p99 {p99 * _MS_PER_S:,.0f} ms, " if p99 is not None else ""
        target = f"{seen}target {TARGETS[lane] * _MS_PER_S:,.0f} ms: "
        if not wanted:
            return f"{target}the slots there are will do"
        return f"{target}{wanted:,} more slot{'s'[: wanted > 1]} would do; start {self._start(lane, wanted)}"

    def _on_budget(self, short: Shortage) -> str:
        state, level = self._state(short), self._level(short)
        field, family = RAISED_BY[short.short], state.family if state else shown_name(short.model) or "*"
        limit = self._limit(short, state, level)
        parts = [self._level_words(short, state, level), self._rivals(short, state)]
        known = f"the limit is {limit:,.0f} {DIMENSIONS[short.short]}{''.join(filter(None, parts))}; " if limit else ""
        raised = f"{field}={limit * 2:.0f}" if limit else f"{field}=…"
        return (
            f"{known}more workers would not help. Wait; or, if the account allows more, for instance twice as much: "
            f"{self._command} lanes limits set '{'…' if family == OTHER else family}' {raised}"
        )

    def _limit(self, short: Shortage, state: BudgetState | None, level: Level | None) -> float:
        if short.quota is not None:
            return short.quota.limit
        if state and short.short == "calls":
            return state.most
        return level.limit if level else 0

    def _on_cap(self, quota: Quota) -> str:
        of = f"--{quota.kind} {shown_name(quota.whose)} " if quota.whose else ""
        raised = f"{FIELDS[quota.kind][-1]}={2 * quota.limit / NANODOLLARS or 1:.2f}"
        until = "wait; or " if quota.till is not None else ""
        return f"{until}raise it, for instance to twice as much: {self._command} lanes limits set {of}{raised}"

    def _level_words(self, short: Shortage, state: BudgetState | None, level: Level | None) -> str:
        if short.short == "calls":
            return f", {state.in_flight:,} are on their way" if state else ""
        return f", {max(0.0, level.level):,.0f} of {level.capacity:,.0f} are there now" if level else ""

    def _rivals(self, short: Shortage, state: BudgetState | None) -> str:
        """Say who else draws on a budget, and how much they have at the moment."""
        others = (
            [name for name in state.lanes.split(",") if name in self._found.lanes and name != short.lane]
            if state
            else []
        )
        said = [f"{name} ({self._found.lanes[name].place.in_flight:,} in flight)" for name in others]
        return f"; {' and '.join(said)} may draw on it, too" if said else ""

    def _state(self, short: Shortage) -> BudgetState | None:
        fitting = [each for each in self._budgets.states if _is_of(short, each.lanes, each.family)]
        return max(fitting, key=lambda each: len(each.family), default=None)

    def _level(self, short: Shortage) -> Level | None:
        fitting = [
            each
            for each in self._budgets.levels
            if each.dimension == short.short
            and each.model in {"", short.model, shown_name(short.model)}
            and _is_of(short, each.lanes, each.family)
        ]
        return max(fitting, key=lambda each: (len(each.family), len(each.model)), default=None)


def _is_of(short: Shortage, lanes: str, family: str) -> bool:
    """Whether what a job is short of is a budget's."""
    return short.lane in lanes.split(",") and (
        family in {short.model, shown_name(short.model)} or fits(short.model, family)
    )

"""The lanes as Prometheus reads them; needs the extra ``exporter``.

Labels are bounded: lanes, families of models as they are configured, at most 32 models of a lane, and words of ours. No
label, and nothing else here, shows a tenant, a prompt or a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from celery_app.budget.levels import SHUT_REASONS, Budgets
from celery_app.budget.quota import BY_DAY
from celery_app.configuration.variables import NANODOLLARS
from celery_app.errors import LanesError
from celery_app.metrics.backlog import Backlog
from celery_app.metrics.distribution import CALLS, INPUT_TOKENS, OUTPUT_TOKENS, WAITS
from celery_app.metrics.look import look
from celery_app.metrics.tally import STATUSES
from celery_app.process.away import say_away

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import Metric

    from celery_app.metrics.distribution import Distribution
    from celery_app.metrics.look import LaneLook, Look
    from celery_app.metrics.spent import Spent

#: Seconds that the calls' mean time is taken from: enough calls for a mean that one long answer does not move.
COUNTS_WINDOW = 300

#: Seconds: nothing here is read from the waits of the last minutes, so as little of them is read as there can be.
_NO_WAITS = 1

#: What the next job of a lane may wait for -> label. With nothing short it is a slot, or that a worker serves the lane.
REASONS = {
    "requests": "requests",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "calls": "calls",
    "closed": "shut",
    "overloaded": "overloaded",
    "prefix": "prefix",
    "paused": "paused",
    "cap": "cap",
    **dict.fromkeys(BY_DAY, "day"),
}
SLOT, NO_WORKER, OTHER = "slot", "no_worker", "other"

OUTCOMES = ("answered", "limited", "overloaded", "refused", "failed")
KINDS = {"input": INPUT_TOKENS, "output": OUTPUT_TOKENS}

_LANE, _BUDGET = ("lane",), ("lanes", "family")
_BUCKET = (*_BUDGET, "model", "dimension")

_Gauge = tuple[str, str, "Callable[[LaneLook], float | None]"]

#: Name, help, and where it is in a look at a lane; None: there is none.
GAUGES: tuple[_Gauge, ...] = (
    ("lanes_jobs_queued", "Jobs that no worker has.", lambda lane: lane.place.depth),
    ("lanes_jobs_in_flight", "Jobs that workers have; each takes a slot.", lambda lane: lane.place.in_flight),
    ("lanes_jobs_scheduled", "Jobs that wait for a time.", lambda lane: lane.place.returning),
    ("lanes_jobs_dead", "Dead letters.", lambda lane: lane.place.dead),
    (
        "lanes_oldest_job_age_seconds",
        "Since the submission of the oldest queued job.",
        lambda lane: lane.place.oldest_s,
    ),
    ("lanes_workers", "Worker processes that serve the lane.", lambda lane: lane.workers),
)

#: Name, help and kind of event.
COUNTERS = (
    ("lanes_jobs_processed", "Jobs with a result.", "processed"),
    ("lanes_jobs_failed", "Jobs that failed for good.", "failed"),
    ("lanes_jobs_returned", "Times that a job went back to its lane.", "returned"),
)


#: The same of money, where there are prices.
MONEY = (
    ("lanes_usd", "Dollars that calls have cost.", "usd"),
    ("lanes_usd_saved", "Dollars that message batches have spared.", "usd_saved"),
)


class LanesCollector(Collector):
    """Looks at the lanes when it is asked, in one round trip."""

    def __init__(self, app: Any) -> None:
        """Take a Celery application with lanes; nothing connects yet."""
        self._app, self._backlog = app, Backlog()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics; while the broker is away, only that it is."""
        try:
            found = look(self._app, COUNTS_WINDOW, _NO_WAITS, budgets=True)
        except LanesError as exc:
            say_away("the lanes cannot be looked at", exc)
            yield GaugeMetricFamily("lanes_up", _UP, value=0)
            return
        yield GaugeMetricFamily("lanes_up", _UP, value=1)
        yield from _jobs(found)
        yield from _calls(found)
        yield _waiting(found)
        yield _slots(self._backlog.slots_wanted(found))
        yield from _budgets(Budgets.of(found.levels))
        if found.spent is not None:
            yield from _money(found, found.spent)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not ask the broker."""
        return ()


_UP = "Whether the broker answers."


def _jobs(found: Look) -> Iterator[Metric]:
    for name, words, value_of in GAUGES:
        yield _gauge(name, words, _LANE, (((lane,), value_of(seen)) for lane, seen in found.lanes.items()))
    for name, words, kind in COUNTERS:
        yield _counter(name, words, _LANE, (((lane,), totals.get(kind, 0)) for lane, totals in _totals(found)))
    waits = [((lane,), WAITS, totals) for lane, totals in _totals(found)]
    yield _histogram("lanes_wait_seconds", "From submission to the first call leaving.", _LANE, waits)


def _calls(found: Look) -> Iterator[Metric]:
    outcomes = (
        ((lane, each), totals.get(f"outcome:{each}", 0)) for lane, totals in _totals(found) for each in OUTCOMES
    )
    yield _counter("lanes_calls", "API calls by how they ended; limited: 429.", ("lane", "outcome"), outcomes)
    errors = ((lane, each, totals.get(f"status:{each}", 0)) for lane, totals in _totals(found) for each in STATUSES)
    yield _counter(
        "lanes_api_errors",
        "API calls that were not answered, by status; none: no answer at all.",
        ("lane", "status"),
        (((lane, status), count) for lane, status, count in errors),
    )
    calls = [((lane,), CALLS, totals) for lane, totals in _totals(found)]
    yield _histogram("lanes_call_seconds", "Time that an API call took.", _LANE, calls)
    tokens = [((lane, kind), each, totals) for lane, totals in _totals(found) for kind, each in KINDS.items()]
    yield _histogram("lanes_call_tokens", "Tokens that count against the limits, of a call.", ("lane", "kind"), tokens)
    used = ((labels, each.total(totals)) for labels, each, totals in tokens)
    yield _counter("lanes_tokens", "Tokens that count against the limits.", ("lane", "kind"), used)


def _waiting(found: Look) -> Metric:
    reasons = (*dict.fromkeys(REASONS.values()), SLOT, NO_WORKER, OTHER)
    rows = (((lane, each), float(each == _reason(seen))) for lane, seen in found.lanes.items() for each in reasons)
    return _gauge("lanes_waiting", "1 for what the lane's next job waits for.", ("lane", "reason"), rows)


def _reason(lane: LaneLook) -> str | None:
    if not lane.place.depth:
        return None
    if not lane.workers:
        return NO_WORKER
    return REASONS.get(lane.head.short, OTHER) if lane.head.short else SLOT


def _slots(wanted: dict[str, int]) -> Metric:
    words = "Slots beyond those in flight that would serve the backlog in time; 0 while the budget is what is short."
    return _gauge("lanes_slots_wanted", words, _LANE, (((lane,), slots) for lane, slots in wanted.items()))


def _budgets(budgets: Budgets) -> Iterator[Metric]:
    levels, states = budgets.levels, budgets.states
    yield _gauge("lanes_budget_level", "Units in a bucket.", _BUCKET, ((row[:4], row.level) for row in levels))
    yield _gauge("lanes_budget_capacity", "Units that it holds.", _BUCKET, ((row[:4], row.capacity) for row in levels))
    words = "Limit per minute: configured, told by the API, or found."
    yield _gauge("lanes_budget_limit_per_minute", words, _BUCKET, ((row[:4], row.limit) for row in levels))
    yield _gauge("lanes_budget_calls", "API calls in flight.", _BUDGET, ((row[:2], row.in_flight) for row in states))
    most = ((row[:2], row.most or None) for row in states)
    yield _gauge("lanes_budget_calls_limit", "API calls in flight that are configured.", _BUDGET, most)
    shut = (((*row[:2], each), float(row.shut == each)) for row in states for each in SHUT_REASONS)
    words = "1 where the API has shut the budget: by a retry-after, or because it refuses the account."
    yield _gauge("lanes_budget_shut", words, (*_BUDGET, "reason"), shut)
    left = ((row[:2], row.shut_s) for row in states)
    yield _gauge("lanes_budget_shut_seconds", "Until the API's retry-after is over.", _BUDGET, left)
    yield GaugeMetricFamily("lanes_models_left_out", "Models whose budgets are not shown.", value=budgets.left_out)


def _money(found: Look, spent: Spent) -> Iterator[Metric]:
    for name, words, kind in MONEY:
        sums = (((lane,), totals.get(kind, 0) / NANODOLLARS) for lane, totals in _totals(found))
        yield _counter(name, words, _LANE, sums)
    today = (((lane,), spent.lane(lane).usd) for lane in found.lanes)
    yield _gauge("lanes_usd_today", "Dollars that calls have cost since midnight.", _LANE, today)
    words = "Part of a cap that is spent today; cap: all, or a lane. From 0.8 on the log has warned."
    yield _gauge("lanes_usd_cap_used", words, ("cap",), (((cap,), part) for cap, part in spent.caps_used.items()))


def _totals(found: Look) -> Iterator[tuple[str, dict[str, int]]]:
    return ((name, lane.happened.totals) for name, lane in found.lanes.items())


def _gauge(name: str, words: str, labels: tuple[str, ...], rows: Iterable[Any]) -> Metric:
    family = GaugeMetricFamily(name, words, labels=labels)
    for values, value in rows:
        if value is not None:
            family.add_metric(values, value)
    return family


def _counter(name: str, words: str, labels: tuple[str, ...], rows: Iterable[Any]) -> Metric:
    family = CounterMetricFamily(name, words, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _histogram(
    name: str, words: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], Distribution, dict[str, int]]]
) -> Metric:
    family = HistogramMetricFamily(name, words, labels=labels)
    for values, distribution, totals in rows:
        family.add_metric(values, distribution.buckets(totals), distribution.total(totals))
    return family

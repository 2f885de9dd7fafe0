"""The state of all lanes over all workers, as one dict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import _state

from celery_app.keys import SLOTS_KEPT
from celery_app.metrics.histogram import quantile
from celery_app.metrics.look import look
from celery_app.metrics.reasons import in_words, lane_reasons
from celery_app.settings import has_lanes

if TYPE_CHECKING:
    from celery_app.metrics.look import LaneLook, Look
    from celery_app.metrics.store import LaneActivity, Times

#: Seconds that the waits are taken from: long enough for a p99, short enough to show what is going on.
WAIT_WINDOW = 300

#: Seconds that the throughput is taken from.
THROUGHPUT_WINDOW = 60

_S_PER_MIN, _MS_PER_S = 60, 1_000


def get_queue_stats(app: Any = None, window_s: float = WAIT_WINDOW) -> dict[str, Any]:
    """Return the state of all lanes over all workers, read from the broker in one round trip.

    Args:
        app: a Celery application with lanes; None: the current one, or `celery_app.app` if that has none.
        window_s: seconds that the waits are taken from, 600 at most.

    Returns:
        ``{"queue_depth": jobs queued in all lanes, "lanes": {name: lane}}``. Each lane has ``depth``, ``in_flight``,
        ``returning`` and ``dead`` (jobs), ``oldest_s`` (age of the oldest queued job; None if there is none or it does
        not say), ``processed``, ``failed`` and ``limited`` (in total; 429 answers), ``throughput_per_min`` (processed
        in the last minute), ``wait_ms`` (``avg``, ``p50``, ``p95``, ``p99``, ``max``, from submission to the call
        leaving; None where no call left in the window), ``call_ms`` (the same of how long calls took) and
        ``waiting_for`` (in words; None: nothing but a slot). Where EZAI_PRICES is set, each has ``usd_today`` and
        ``usd_saved_today``, and beside the lanes there is ``spent``: ``day``, ``usd`` and ``usd_saved`` of all.

    Raises:
        BrokerUnreachable: if no broker answers.
        InvalidSettings: if the environment is wrong.
        ValueError: if the window is longer than what is kept.
    """
    if not 0 < window_s <= SLOTS_KEPT:
        raise ValueError(f"the window has to be above 0 and at most {SLOTS_KEPT} s, not {window_s}")
    app = _lanes_app() if app is None else app
    found = look(app, THROUGHPUT_WINDOW, window_s)
    return {
        "queue_depth": sum(lane.place.depth for lane in found.lanes.values()),
        "lanes": {
            name: lane_figures(lane) | lane_money(found, name) | {"waiting_for": in_words(lane_reasons(found, name))}
            for name, lane in found.lanes.items()
        },
        **money(found),
    }


def money(found: Look) -> dict[str, Any]:
    """Return what was spent today, as ``spent``; nothing where there are no prices."""
    if found.spent is None:
        return {}
    total = found.spent.total
    return {"spent": {"day": found.spent.window, "usd": total.usd, "usd_saved": total.saved}}


def lane_money(found: Look, name: str) -> dict[str, float]:
    """Return what a lane has spent today; nothing where there are no prices."""
    if found.spent is None:
        return {}
    amounts = found.spent.lane(name)
    return {"usd_today": amounts.usd, "usd_saved_today": amounts.saved}


def lane_figures(lane: LaneLook) -> dict[str, Any]:
    """Return what `get_queue_stats` tells of a lane in numbers."""
    place, happened = lane.place, lane.happened
    return {
        "depth": place.depth,
        "oldest_s": place.oldest_s,
        "in_flight": place.in_flight,
        "returning": place.returning,
        "dead": place.dead,
        "processed": happened.totals.get("processed", 0),
        "failed": happened.totals.get("failed", 0),
        "throughput_per_min": _per_minute(happened),
        "wait_ms": _figures_ms(happened.waits),
        "call_ms": _figures_ms(happened.calls),
        "limited": happened.totals.get("limited", 0),
    }


def _lanes_app() -> Any:
    app = _state.get_current_app()
    if has_lanes(app):
        return app
    from celery_app.app import app as own

    return own


def _per_minute(happened: LaneActivity) -> float:
    return round(happened.counts.get("processed", 0) * _S_PER_MIN / happened.counted_s, 1)


def _figures_ms(times: Times) -> dict[str, float | None]:
    buckets, longest = times.buckets, times.longest_s
    figures = {
        "avg": times.total_s / sum(buckets.values()) if buckets else None,
        "p50": quantile(buckets, 0.50),
        "p95": quantile(buckets, 0.95),
        "p99": quantile(buckets, 0.99),
        "max": longest if buckets else None,
    }
    return {name: _ms(seconds, longest) for name, seconds in figures.items()}


def _ms(seconds: float | None, longest_s: float) -> float | None:
    """A bucket's middle may lie above the slowest call in it."""
    return None if seconds is None else round(min(seconds, longest_s) * _MS_PER_S, 1)

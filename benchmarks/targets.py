"""What the lanes were to show (issue 13), to be held beside what was measured: a miss is told as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Target(NamedTuple):
    """One thing to show.

    Attributes:
        words: what, and how much is wanted.
        value: the figure, of the medians by scenario and contender.
        is_met: whether it is enough.
        form: how it reads.
    """

    words: str
    value: Callable[[Any], float]
    is_met: Callable[[float], bool]
    form: str = "{:,}"


def _of(scenario: str, *path: str, name: str = "lanes") -> Callable[[Any], float]:
    def find(results: Any) -> float:
        found = results[scenario][name]["median"]
        for key in path:
            found = found[key]
        return float(found)

    return find


def _to(ours: Callable[[Any], float], theirs: Callable[[Any], float]) -> Callable[[Any], float]:
    return lambda results: ours(results) / theirs(results)


def _least(least: float) -> Callable[[float], bool]:
    return lambda value: value >= least


def _most(most: float) -> Callable[[float], bool]:
    return lambda value: value <= most


TARGETS = (
    Target(
        "beside a batch at a limit, stock Celery's p99 is at least 100 times critical's",
        _to(_of("limited", "critical", "p99", name="celery"), _of("limited", "critical", "p99")),
        _least(100),
        "{:.0f} times",
    ),
    Target(
        "beside a batch, critical's p50 is at most 1.15 times that alone",
        _of("limited", "beside_to_alone", "p50"),
        _most(1.15),
    ),
    Target("its p95 at most 1.3 times", _of("limited", "beside_to_alone", "p95"), _most(1.3)),
    Target(
        "batch alone uses all that the lanes send of a limit, 98 %",
        _of("bursts", "used_by_batch_alone"),
        _least(0.975),
        "{:.1%}",
    ),
    Target("bursts of 20: critical's p99 at most 30 ms", _of("bursts", "wave", "p99"), _most(30), "{:,} ms"),
    Target("15 a second: critical's p99 at most 30 ms", _of("bursts", "fast", "p99"), _most(30), "{:,} ms"),
    Target("and at least 97 % of the limit used", _of("bursts", "used"), _least(0.97), "{:.1%}"),
    Target("at 120 % of the limit: at least 97 % used", _of("overload", "used"), _least(0.97), "{:.1%}"),
    Target("and critical's p99 at most 50 ms", _of("overload", "critical", "p99"), _most(50), "{:,} ms"),
    Target("kills: no job is lost", _of("kills", "unanswered"), _most(0)),
    Target("at most 0.45 done twice a kill", _of("kills", "twice_per_kill"), _most(0.45)),
    Target(
        "jobs that do nothing: drained as fast as by dramatiq",
        _to(_of("nothing", "drained_per_s"), _of("nothing", "drained_per_s", name="dramatiq")),
        _least(1),
        "{:.2f} times",
    ),
    Target(
        "for at most stock Celery's CPU a job",
        _to(_of("nothing", "cpu_ms_per_job"), _of("nothing", "cpu_ms_per_job", name="celery")),
        _most(1),
        "{:.2f} times",
    ),
    Target(
        "a thousand waiters on one bucket: 1,800 answers a second, ten times token-throttle's",
        _of("waiters", "asked_per_s"),
        _least(1_800),
    ),
)

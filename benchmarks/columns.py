"""The columns of the tables, and the heading of each scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

ALL_QUANTILES = ("p50", "p95", "p99", "max")
#: Worker processes.
PROCESSES = ("1", "2", "4", "8")


def seconds(ms: float) -> str:
    """Return a wait as people say it: 7.4, 26 or 950 (ms), 4.6s."""
    if ms >= 1_000:
        return f"{ms / 1_000:.1f}s"
    return f"{ms:.0f}" if ms >= 10 else f"{ms:.1f}"


class Column(NamedTuple):
    """One figure of all contenders.

    Attributes:
        head: its heading.
        scenario: where it is from.
        figure: what is sorted by: the smaller the better.
        text: how a cell reads.
    """

    head: str
    scenario: str
    figure: Callable[[Any], float]
    text: Callable[[Any], str]


def _ms(*path: str, quantiles: tuple[str, ...] = ("p50", "p99")) -> tuple[Callable[[Any], float], Callable[[Any], str]]:
    find = lambda run: [run[path[0]][q] for q in quantiles]  # noqa: E731
    return lambda run: find(run)[-1], lambda run: "/".join(map(seconds, find(run)))


def _plain(key: str, form: str = "{:,}", sign: int = 1) -> tuple[Callable[[Any], float], Callable[[Any], str]]:
    return lambda run: sign * run[key], lambda run: form.format(run[key])


def _in(part: str, key: str, sign: int = 1) -> tuple[Callable[[Any], float], Callable[[Any], str]]:
    return lambda run: sign * run[part][key], lambda run: f"{run[part][key]:,}"


def _cores(number: str) -> tuple[Callable[[Any], float], Callable[[Any], str]]:
    # No contest: it says what bounds the others.
    return lambda _: 0.0, lambda run: f"{run[number]['cores']}, {run[number]['broker_cores']}"


def _of_lanes(scenario: str) -> tuple[Column, ...]:
    waits = [Column(lane, scenario, *_ms(lane)) for lane in ("critical", "normal", "batch")]
    numbers = [
        Column(head, scenario, *_plain(key))
        for head, key in (
            ("429s", "limited"),
            ("failed", "failed"),
            ("not done", "unanswered"),
            ("CPU ms/job", "cpu_ms_per_job"),
        )
    ]
    return (*waits, Column("limit used", scenario, *_plain("used", "{:.1%}", -1)), *numbers)


SHORT = (
    Column("no limit", "free", *_ms("critical")),
    Column("limit 20/s", "limited", *_ms("critical")),
    Column("429s", "limited", *_plain("limited")),
    Column("bursts", "bursts", *_ms("wave")),
    Column("15/s", "bursts", *_ms("fast")),
    Column("used", "bursts", *_plain("used", "{:.0%}", -1)),
    Column("jobs/s", "nothing", *_plain("drained_per_s", sign=-1)),
)
LONG = {
    "limited": (
        Column("alone", "limited", *_ms("alone", quantiles=ALL_QUANTILES)),
        Column("beside batch", "limited", *_ms("critical", quantiles=ALL_QUANTILES)),
        Column("ratio p50", "limited", *[lambda run: run["beside_to_alone"]["p50"]] * 2),
        Column("ratio p95", "limited", *[lambda run: run["beside_to_alone"]["p95"]] * 2),
        Column("429s", "limited", *_plain("limited")),
        Column("time to ideal", "limited", *_plain("to_ideal")),
        Column("failed", "limited", *_plain("failed")),
        Column("unanswered", "limited", *_plain("unanswered")),
        Column("CPU ms/job", "limited", *_plain("cpu_ms_per_job")),
    ),
    "bursts": (
        *(Column(kind, "bursts", *_ms(kind, quantiles=ALL_QUANTILES)) for kind in ("wave", "slow", "fast")),
        Column("limit used", "bursts", *_plain("used", "{:.1%}", -1)),
        Column("by batch alone", "bursts", *_plain("used_by_batch_alone", "{:.1%}", -1)),
        Column("429s", "bursts", *_plain("limited")),
    ),
    "free": (
        Column("critical", "free", *_ms("critical", quantiles=ALL_QUANTILES)),
        Column("time to ideal", "free", *_plain("to_ideal")),
        Column("CPU ms/job", "free", *_plain("cpu_ms_per_job")),
    ),
    "nothing": (
        Column("queued/s", "nothing", *_plain("queued_per_s", sign=-1)),
        Column("drained/s", "nothing", *_plain("drained_per_s", sign=-1)),
        Column("CPU ms/job", "nothing", *_plain("cpu_ms_per_job")),
        Column("worker, MB", "nothing", *_plain("memory_mb")),
    ),
    "overload": _of_lanes("overload"),
    "failures": _of_lanes("failures"),
    "kills": (
        Column("kills", "kills", *_plain("kills", sign=0)),
        Column("done twice", "kills", *_plain("done_twice")),
        Column("a kill", "kills", *_plain("twice_per_kill")),
        Column("of these answered to the dead", "kills", *_plain("answered_to_the_dead", sign=0)),
        Column("not done", "kills", *_plain("unanswered")),
        Column("failed", "kills", *_plain("failed")),
    ),
    "prompts": (
        Column("critical", "prompts", *_ms("critical", quantiles=ALL_QUANTILES)),
        Column("CPU ms/job", "prompts", *_plain("cpu_ms_per_job")),
    ),
    "backlog": (
        Column("1,000 queued", "backlog", *_ms("few", quantiles=ALL_QUANTILES)),
        Column("very many", "backlog", *_ms("many", quantiles=ALL_QUANTILES)),
        Column("queued then", "backlog", *_plain("queued", sign=0)),
        Column("bytes a job", "backlog", *_plain("bytes_per_job")),
    ),
    "tenants": (
        Column("the quiet ones", "tenants", *_ms("quiet", quantiles=ALL_QUANTILES)),
        Column("not answered", "tenants", *_in("quiet", "unanswered")),
        Column("429s", "tenants", *_plain("limited")),
    ),
    "waiters": (
        Column("answers/s", "waiters", *_plain("asked_per_s", sign=-1)),
        Column("wait", "waiters", *_ms("wait", quantiles=ALL_QUANTILES)),
    ),
    "processes": tuple(
        Column(f"{number}: jobs/s", "processes", *_in(number, "drained_per_s", sign=-1)) for number in PROCESSES
    )
    + tuple(Column(f"{number}: cores, broker's", "processes", *_cores(number)) for number in PROCESSES),
}
HEADS = {
    "limited": "Critical twice a second, alone and beside a batch; 20 requests a second allowed",
    "bursts": "Critical in bursts of 20, then 5/s, then 15/s, then none, beside an endless batch",
    "free": "No API limit: batch fills every slot",
    "nothing": "Jobs that do nothing, one worker of 8 slots",
    "overload": "All three lanes at 120 % of the limit",
    "failures": "The same, and the API fails 10 % of the calls",
    "kills": "The worker for all lanes is killed with SIGKILL every two seconds",
    "prompts": "Batch has prompts of 100,000 tokens",
    "backlog": "Critical beside a short and a very long backlog",
    "tenants": "Five tenants with four calls each, behind one that has queued hundreds",
    "waiters": "A thousand threads ask one bucket for a call, again and again",
    "processes": "Jobs that do nothing, drained by 1, 2, 4 and 8 worker processes",
}

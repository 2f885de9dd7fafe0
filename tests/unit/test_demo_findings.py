from __future__ import annotations

from typing import Any

import pytest

from demo.findings import sentence
from demo.job import Job
from demo.waits import first_arrivals, summary, waits_ms, while_queued


def job(user_id: str, submitted: float) -> Job:
    """A job submitted at some second."""
    return Job("critical", user_id, submitted, task_id=user_id)


def found(wait_ms: dict[str, float | None], jobs: int = 30) -> dict[str, Any]:
    """Findings with these waits of critical beside the batch."""
    return {"critical_beside_batch": {"jobs": jobs, "wait_ms": wait_ms}}


def test_percentiles_are_waits_that_occurred() -> None:
    """Nearest rank: each figure is one of the values, the worst is the worst."""
    assert summary(range(1, 101)) == {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert summary([7.0]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0, "max": 7.0}
    assert summary([]) == {"p50": None, "p95": None, "p99": None, "max": None}


def call(user_id: str | None, arrived: float, status: int = 200) -> dict[str, Any]:
    """A call in the simulator's log."""
    return {"user_id": user_id, "arrived": arrived, "status": status}


def test_a_wait_ends_with_the_first_call_that_is_let_in() -> None:
    """A call turned away with 429 ends no wait, one repeated after an error ended it; without a call there is none."""
    calls = [call("a", 10.2, 429), call(None, 10.3), call("a", 10.5, 500), call("a", 12.0)]
    assert waits_ms([job("a", 10.0), job("b", 10.0)], first_arrivals(calls)) == [500.0]


def test_only_waits_beside_a_full_batch_count() -> None:
    """A question counts if enough documents were queued from its submission to its arrival."""
    documents = [job(f"d{n}", n) for n in range(10)]  # one a second from 0 on
    arrivals = {f"d{n}": 20.0 + n for n in range(10)}  # one a second leaves from 20 on
    early, between, late, leaving = job("early", 3.0), job("between", 12.0), job("late", 26.0), job("leaving", 21.5)
    arrivals |= {"early": 12.0, "between": 13.0, "late": 27.0, "leaving": 25.5}
    assert while_queued([early, between, late, leaving], documents, arrivals, at_least=5) == [between]


@pytest.mark.parametrize(
    ("wait_ms", "words"),
    [
        ({"p50": 6.0, "p95": 9.0, "p99": 31.0, "max": 31.0}, "6 ms (median), 31 ms at worst: it never waited"),
        ({"p50": 6.0, "p95": 9.0, "p99": 1_310.0, "max": 1_310.0}, "1,310 ms at worst: at least 95 in 100 went"),
        ({"p50": 6.0, "p95": 900.0, "p99": 910.0, "max": 910.0}, "more than 5 in 100 had to wait"),
        ({"p50": 2_900.0, "p95": 4_000.0, "p99": 5_000.0, "max": 5_000.0}, "it did have to wait"),
        ({"p50": None, "p95": None, "p99": None, "max": None}, "this run says nothing"),
    ],
)
def test_the_sentence_follows_from_the_figures(wait_ms: dict[str, float | None], words: str) -> None:
    """It claims that chat never waited only if it never did."""
    said = sentence(found(wait_ms))
    assert words in said
    assert ("never waited" in said) == (wait_ms["max"] == 31.0)
    assert said.count(".") == 1


def test_a_run_without_the_simulator_is_judged_by_its_stats() -> None:
    """With a real API, whose log of calls nobody has, the sentence is about all questions."""
    waits = {"p50": 5.0, "p95": 8.0, "p99": 9.0, "max": 9.0}
    said = sentence({"critical_beside_batch": None, "lanes": {"critical": {"wait_ms": waits}}})
    assert said.startswith("Beside the batch, ")
    assert "100+" not in said

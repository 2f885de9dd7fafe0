from typing import Any

import pytest

from demo.findings import note_arrivals, sentence, waits_ms, while_queued
from demo.run import Job


def call(user_id: str | None, arrived: float, status: int = 200) -> dict[str, Any]:
    """A call in the simulator's log."""
    return {"user_id": user_id, "arrived": arrived, "status": status}


def test_a_wait_ends_with_the_first_call_that_is_let_in():
    """A call turned away with 429 ends no wait, one repeated after an error ended it; without a call there is none."""
    jobs = {name: Job(name, 10.0) for name in "ab"}
    limited = note_arrivals(jobs, [call("a", 10.2, 429), call(None, 10.3), call("a", 10.5, 500), call("a", 12.0)])
    assert waits_ms(jobs.values()) == [500.0]
    assert limited == {"a": 1}


def test_only_waits_beside_a_full_batch_count():
    """A question counts if enough documents were queued from its submission to its arrival."""
    documents = [Job(f"d{n}", n, 20.0 + n) for n in range(1, 11)]  # one a second from 1 on; one leaves from 21 on
    early, between = Job("early", 3.0, 12.0), Job("between", 12.0, 13.0)
    late, leaving = Job("late", 26.0, 27.0), Job("leaving", 21.5, 26.5)
    assert while_queued([early, between, late, leaving], documents, at_least=5) == [between]


@pytest.mark.parametrize(
    ("wait_ms", "words"),
    [
        ({"p50": 6.0, "p95": 9.0, "p99": 31.0, "max": 31.0}, "6 ms (median), 31 ms at worst: it never waited"),
        ({"p50": 6.0, "p95": 9.0, "p99": 1_310.0, "max": 1_310.0}, "1,310 ms at worst: at least 95 in 100 went"),
        ({"p50": 6.0, "p95": 900.0, "p99": 910.0, "max": 910.0}, "more than 5 in 100 had to wait"),
        ({"p50": None, "p95": None, "p99": None, "max": None}, "this run says nothing"),
    ],
)
def test_the_sentence_follows_from_the_figures(wait_ms, words):
    """It claims that chat never waited only if it never did."""
    said = sentence(wait_ms)
    assert words in said
    assert ("never waited" in said) == (wait_ms["max"] == 31.0)
    assert said.count(".") == 1

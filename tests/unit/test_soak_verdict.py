"""What the soak's verdict rests on: a ledger that misses nothing, and slopes that tell a leak from noise."""

import random
from typing import Any

import pytest
from soaking.ledger import Fault, Ledger
from soaking.slopes import BOUNDS, Samples


def told(what: str, job: str = "call-1", **more: Any):
    """Return a line of the traffic's."""
    return {"at": 100.0, "what": what, "job": job, "id": job, **more}


def answered(at: float, job: str = "call-1", **more: Any):
    """Return a call as the API knows it, answered whole unless it says otherwise."""
    whole = {"user_id": job, "arrived": at, "ended": at + 1, "status": 200, "fault": None, "closed_by_client": None}
    return {**whole, **more}


@pytest.fixture
def ledger():
    """A ledger that has heard of one job, which was done once."""
    ledger = Ledger()
    ledger.hear(told("sent"))
    ledger.witness([answered(101.0)])
    ledger.learn("call-1", "SUCCESS", None)
    return ledger


def test_a_job_that_was_done_once_is_well(ledger):
    """Nothing is found where nothing is."""
    account = ledger.audit()
    assert (account["outcomes"], account["twice"], account["findings"]) == ({"done": 1}, {}, [])


def test_a_lost_job_is_found(ledger):
    """One that was sent and never ends is lost, also if the API was called."""
    ledger.hear(told("sent", "call-2"))
    ledger.witness([answered(102.0, "call-2")])
    account = ledger.audit()
    assert account["outcomes"] == {"done": 1, "lost": 1}
    assert "call-2 is lost" in account["findings"][0]


def test_a_killed_master_may_lose_a_job_or_two_and_no_more(ledger):
    """What it has said and not replicated is gone with it; anything else that is lost is found."""
    for n in range(2, 4):
        ledger.hear(told("sent", f"call-{n}"))
    ledger.faults.append(Fault("master lost", 101.0, 120.0))
    account = ledger.audit()
    assert (account["outcomes"], account["findings"]) == ({"done": 1, "lost: master lost": 2}, [])
    ledger.hear(told("sent", "call-4"))
    assert ledger.audit()["findings"] == ["3 jobs are lost with 1 masters"]
    ledger.hear({**told("sent", "call-5"), "at": 200.0})
    assert "call-5 is lost" in ledger.audit()["findings"][0]


def test_a_killed_master_explains_only_what_was_written_about_then(ledger):
    """What was sent long before it was replicated; its answer may have come just before, and that is lost with it."""
    ledger.faults.append(Fault("master lost", 110.0, 120.0))
    ledger.hear(told("sent", "call-2"))
    assert "call-2 is lost" in ledger.audit()["findings"][0]
    ledger.witness([answered(109.0, "call-2")])
    assert ledger.audit()["findings"] == []


def test_a_job_in_doubt_may_never_have_been_queued(ledger):
    """Who was told that nobody knows has been told the truth; who was refused must not be called."""
    ledger.hear(told("doubt", "call-2", why="MaybeQueued"))
    assert ledger.audit()["findings"] == []
    ledger.hear(told("refused", "call-3", why="LaneFull"))
    assert ledger.audit()["findings"] == []
    ledger.witness([answered(102.0, "call-3")])
    assert "call-3 was refused" in ledger.audit()["findings"][0]


def test_a_job_that_was_done_twice_has_a_reason_or_is_found(ledger):
    """Between the first answer and the next call something must have happened."""
    ledger.witness([answered(120.0)])
    ledger.faults.append(Fault("too early", 80.0, 90.0))
    ledger.faults.append(Fault("too late", 130.0, 140.0))
    account = ledger.audit()
    assert account["twice"] == {"no reason": 1}
    assert "called 2 times" in account["findings"][0]
    ledger.faults.append(Fault("worker killed", 110.0, 110.0))
    account = ledger.audit()
    assert (account["twice"], account["findings"]) == ({"worker killed": 1}, [])


@pytest.mark.parametrize(
    "half", [{"status": 529}, {"fault": "drop_mid_stream"}, {"closed_by_client": 121.0}, {"status": None}]
)
def test_half_an_answer_is_none(ledger, half):
    """What the API did not answer whole may be called again, without any reason."""
    ledger.witness([answered(120.0, **half)])
    assert ledger.audit()["twice"] == {}


def test_what_else_may_be_wrong_is_found(ledger):
    """An end that changes, a cancellation that was no end, a torn stream, a strange error, and a call of nobody's."""
    ledger.learn("call-1", "FAILURE", "ApiError")
    ledger.hear(told("sent", "call-2"))
    ledger.hear(told("cancelled", "call-2", won=True))
    ledger.learn("call-2", "FAILURE", "KilledItsWorker")
    ledger.hear(told("read", "call-2", how="torn"))
    ledger.witness([answered(103.0, "call-9")])
    found = "\n".join(ledger.audit()["findings"])
    for words in (
        "then as ApiError",
        "cancelled in time",
        "failed with KilledItsWorker",
        "'torn'",
        "call-9 was called",
    ):
        assert words in found


@pytest.mark.parametrize("measure", BOUNDS)
def test_a_leak_is_told_from_noise(measure):
    """One that is twice its bound is found, among noise and wild values; noise alone, and what fills up, is none."""
    noise, samples = random.Random(7), Samples()
    bound = BOUNDS[measure]
    for second in range(0, 7200, 10):
        wild = 50 * noise.random() if noise.random() < 0.1 else 0
        value = 100 + noise.gauss(0, 2) + wild
        samples.add("steady", measure, second, value)
        samples.add("fills up", measure, second, value + min(second, 1800))
        samples.add("leaks", measure, second, value + 2 * max(bound) * second / 3600)
    grows = {slope.what: slope.grows for slope in samples.slopes()}
    assert grows == {"steady": False, "fills up": False, "leaks": True}


def test_a_short_life_says_nothing():
    """A worker that was killed after two minutes is not judged."""
    samples = Samples()
    for second in range(120):
        samples.add("dies", "memory MB", second, second)
    assert samples.slopes() == []

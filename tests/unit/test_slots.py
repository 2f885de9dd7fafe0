"""How many slots a lane wants, against the queueing theory that it is taken from."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from celery_app.metrics.slots import Load, slots_wanted

IDLE = Load(queued=0, busy=0, arriving=0, call_s=4, target_s=600)

LOADS = st.builds(
    Load,
    queued=st.integers(0, 1_000_000),
    busy=st.integers(0, 10_000),
    arriving=st.floats(0, 1_000),
    call_s=st.floats(0.001, 300),
    target_s=st.sampled_from([1.0, 10.0, 600.0]),
    fed=st.one_of(st.just(math.inf), st.floats(0.001, 1_000)),
)


def probability_of_waiting(offered: float, slots: int) -> float:
    """Return Erlang's C: the fraction of arrivals that find all slots busy, by the usual recursion for Erlang's B."""
    blocked = 1.0
    for number in range(1, slots + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1 - offered / slots * (1 - blocked))


@pytest.mark.parametrize("arriving", [0.5, 2, 10, 50, 250])
def test_what_arrives_hardly_waits(arriving):
    """With the slots that a steady load wants, less than three in ten jobs wait at all, however large the load."""
    load = replace(IDLE, arriving=arriving)
    assert probability_of_waiting(arriving * load.call_s, slots_wanted(load)) < 0.3


def test_a_backlog_alone_is_served_within_the_target():
    """Each slot does target / call jobs in time, and there are as many as that takes."""
    load = replace(IDLE, queued=1_000)
    assert slots_wanted(load) * load.target_s / load.call_s >= load.queued
    assert (slots_wanted(load) - 1) * load.target_s / load.call_s < load.queued


def test_nothing_to_do_wants_nothing():
    """No slot is wanted for an idle lane, and one for a single job."""
    assert slots_wanted(IDLE) == 0
    assert slots_wanted(replace(IDLE, queued=1)) == 1


@given(LOADS)
def test_no_slot_waits_for_the_budget_alone(load):
    """However long the backlog, all slots together are no more than the budget keeps busy, and few more."""
    fed = load.fed * load.call_s
    wanted = slots_wanted(load)
    assert wanted >= 0
    if wanted and fed < math.inf:
        assert wanted + load.busy <= math.ceil(fed + math.sqrt(fed))


@given(LOADS, st.integers(1, 1_000))
def test_busy_slots_count(load, more):
    """What is wanted does not depend on how many slots there are: those that work already are taken off."""
    wanted = slots_wanted(load)
    assert slots_wanted(replace(load, busy=load.busy + more)) == max(0, wanted - more)


@given(LOADS)
def test_what_is_held_up_wants_no_slot(load):
    """While the budget is what is short, none is wanted."""
    assert slots_wanted(replace(load, held=True)) == 0

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from demo.simulator import Behaviour, Fault, InvalidChange, Limits, Simulator
from demo.simulator.faults import Status, named

if TYPE_CHECKING:
    from random import Random


def seeded(behaviour: Behaviour) -> Random:
    """Give the simulator's own source of draws."""
    return Simulator(behaviour, Limits()).random


def test_every_problem_is_reported_together() -> None:
    """A behaviour that cannot be names all of its wrong fields at once."""
    with pytest.raises(ValueError, match=r"drop_rate.*latency.*output_tokens"):
        Behaviour(latency=-1, drop_rate=2, output_tokens=0)


def test_faults_are_as_frequent_as_their_rates() -> None:
    """Each fault befalls its share of the calls, and the rest are well."""
    behaviour = Behaviour(overloaded_rate=0.2, hang_rate=0.1, seed=1)
    random = seeded(behaviour)
    draws = [behaviour.draw_fault(random, streaming=False) for _ in range(10_000)]
    assert draws.count(Fault.OVERLOADED) == pytest.approx(2_000, rel=0.1)
    assert draws.count(Fault.HANG) == pytest.approx(1_000, rel=0.1)
    assert draws.count(None) == pytest.approx(7_000, rel=0.1)


def test_only_streams_break_in_the_middle() -> None:
    """A fault in the middle of a stream never befalls a call that does not stream."""
    behaviour = Behaviour(truncated_rate=1)
    random = seeded(behaviour)
    assert behaviour.draw_fault(random, streaming=True) is Fault.TRUNCATED
    assert behaviour.draw_fault(random, streaming=False) is None


def test_one_seed_gives_one_course() -> None:
    """A run with a seed can be repeated, latencies and lengths included."""
    behaviour = Behaviour(latency=1, jitter=0.5, output_tokens=100, output_spread=0.5, drop_rate=0.5, seed=7)

    def course() -> list[object]:
        random = seeded(behaviour)
        draws = (behaviour.draw_latency, behaviour.draw_output_tokens)
        return [[draw(random) for draw in draws] + [behaviour.draw_fault(random, streaming=True)] for _ in range(9)]

    assert course() == course()


def test_latency_stays_within_its_jitter() -> None:
    """No latency differs from the mean by more than the jitter, and none is negative."""
    behaviour = Behaviour(latency=0.1, jitter=0.3, seed=1)
    random = seeded(behaviour)
    draws = [behaviour.draw_latency(random) for _ in range(1_000)]
    assert min(draws) == 0
    assert 0.3 < max(draws) <= 0.4


def test_a_change_names_the_nearest_field() -> None:
    """A misspelt field is refused, with the name that was probably meant."""
    with pytest.raises(InvalidChange, match="latency"):
        Simulator(Behaviour(), Limits()).change({"latancy": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"latency": "fast"},
        {"latency": float("nan")},
        {"latency": float("inf")},
        {"output_tokens": 1.5},
        {"outage": 1},
        {"rpm": True},
        {"limits": {"*": 5}},
        {"behaviour": {"hang_rate": 2}},
        {"behaviour": []},
    ],
)
def test_a_wrong_value_changes_nothing(change: dict[str, Any]) -> None:
    """A change with one wrong value is refused as a whole."""
    simulator = Simulator(Behaviour(), Limits(rpm=60))
    before = simulator.settings()
    with pytest.raises(InvalidChange):
        simulator.change({"jitter": 0.5, **change})
    assert simulator.settings() == before


def test_settings_can_be_given_back() -> None:
    """What the settings show is, sent through JSON, a change that changes nothing."""
    simulator = Simulator(Behaviour(latency=0.5), {"*haiku*": Limits(rpm=60), "*": Limits(itpm=1_000)})
    before = simulator.settings()
    simulator.change(json.loads(json.dumps(before)))
    assert simulator.settings() == before


def test_limits_of_a_pattern_come_and_go() -> None:
    """A pattern can be added, changed field by field, and dropped."""
    simulator = Simulator(Behaviour(), Limits())
    simulator.change({"limits": {"*haiku*": {"rpm": 60}}})
    simulator.change({"limits": {"*haiku*": {"in_flight": 2}}})
    assert simulator.limits["*haiku*"] == Limits(rpm=60, in_flight=2)
    simulator.change({"limits": {"*haiku*": None}})
    assert set(simulator.limits) == {"*"}


def test_faults_have_names_and_statuses_have_numbers() -> None:
    """A request can ask for a fault by its name, or for an error by its status."""
    assert named("hang") is Fault.HANG
    assert named("409") == Status(409)
    assert named("503;retry-after=Wed, 21 Oct") == Status(503, "Wed, 21 Oct")
    with pytest.raises(ValueError, match="broken_json"):
        named("brokn_json")

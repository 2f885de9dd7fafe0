import pytest

from demo.simulator import ApiLimits, Behaviour, InvalidChange, Simulator
from demo.simulator.simulator import CallLog


def test_faults_are_as_frequent_as_their_rates():
    """Each fault befalls its share of the calls, and the rest are well."""
    behaviour = Behaviour(overloaded_rate=0.2, server_error_rate=0.1)
    draws = [behaviour.fault(streaming=False) for _ in range(10_000)]
    assert draws.count("overloaded") == pytest.approx(2_000, rel=0.2)
    assert draws.count("server_error") == pytest.approx(1_000, rel=0.2)
    assert draws.count(None) == pytest.approx(7_000, rel=0.1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"latancy": 1}, "latancy.*latency"),
        ({"latency": "fast"}, "latency"),
        ({"latency": None}, "latency"),
        ({"latency": -1}, "latency"),
        ({"latency": float("nan")}, "latency"),
        ({"latency": float("inf")}, "latency"),
        ({"outage": 1}, "outage"),
        ({"rpm": True}, "rpm"),
        ({"limits": {"*": 5}}, "limits"),
        ({"limits": {"*": {"rpn": 5}}}, "rpn"),
    ],
)
def test_a_wrong_value_changes_nothing(change, told):
    """A change with one wrong name or value is refused as a whole, and names it."""
    simulator = Simulator(Behaviour(), ApiLimits(rpm=60))
    before = simulator.settings()
    with pytest.raises(InvalidChange, match=told):
        simulator.change({"jitter": 0.5, "itpm": 7, **change})
    assert simulator.settings() == before


def test_limits_change_by_pattern_and_for_all_others():
    """A limit at the top is that of all models that no pattern names; what is not named stays as it is."""
    simulator = Simulator(Behaviour(latency=0.5), ApiLimits(itpm=1_000))
    simulator.change({"jitter": 0.1, "rpm": 60, "limits": {"*haiku*": {"rpm": 6}}})
    simulator.change({"limits": {"*haiku*": {"in_flight": 2}}})
    assert simulator.limits == {"*": ApiLimits(rpm=60, itpm=1_000), "*haiku*": ApiLimits(rpm=6, in_flight=2)}
    assert simulator.behaviour == Behaviour(latency=0.5, jitter=0.1)


def test_calls_come_in_order_of_arrival():
    """A call that arrived first stands first, although another ended before it, and one goes on."""
    log = CallLog()
    calls = [log.begin() for _ in range(3)]
    for number, call in enumerate(calls):
        call.arrived, call.user_id = float(number), str(number)
    log.end(calls[1])
    log.end(calls[0])
    assert [call["user_id"] for call in log.calls()] == ["0", "1", "2"]


def test_the_log_is_bounded_and_the_counts_are_not():
    """Old calls are forgotten, but counted all the same; cleared, only those that go on stay."""
    log = CallLog(kept=2)
    for _ in range(5):
        call = log.begin()
        call.status = 200
        log.end(call)
    going_on = log.begin()
    assert len(log.calls()) == 3
    assert log.summary() == {"statuses": {"200": 5}, "total": 5, "in_flight": 1}
    log.clear()
    assert log.summary() == {"statuses": {}, "total": 0, "in_flight": 1}
    log.end(going_on)
    assert log.summary() == {"statuses": {"no_answer": 1}, "total": 1, "in_flight": 0}

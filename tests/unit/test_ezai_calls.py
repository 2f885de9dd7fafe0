from __future__ import annotations

from demo.simulator.calls import CallLog


def test_calls_come_in_order_of_arrival() -> None:
    """A call that arrived first stands first, although another ended before it, and one goes on."""
    log = CallLog()
    first, second, _ = (log.begin(name) for name in ("one", "two", "three"))
    log.end(second)
    log.end(first)
    calls = log.calls()
    assert [call["request_id"] for call in calls] == ["one", "two", "three"]
    assert [call["seconds"] is None for call in calls] == [False, False, True]


def test_the_log_is_bounded_and_the_counts_are_not() -> None:
    """Old calls are forgotten, but counted all the same."""
    log = CallLog(kept=2)
    for number in range(5):
        call = log.begin(str(number))
        call.status = 200
        log.end(call)
    assert [call["request_id"] for call in log.calls()] == ["3", "4"]
    assert log.summary()["statuses"] == {"200": 5}


def test_clearing_keeps_what_goes_on() -> None:
    """A call that goes on while the log is cleared is still in flight, and is counted when it ends."""
    log = CallLog()
    call = log.begin("one")
    log.clear()
    assert log.summary()["in_flight"] == log.summary()["max_in_flight"] == 1
    log.end(call)
    assert log.summary()["total"] == 1


def test_only_a_call_that_goes_on_can_be_closed_by_its_client() -> None:
    """A client that hangs up after the end has had its answer."""
    log = CallLog()
    call = log.begin("one")
    log.end(call)
    log.hung_up(call)
    assert log.summary()["closed_by_client"] == 0

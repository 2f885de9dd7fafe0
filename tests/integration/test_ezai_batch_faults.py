from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from kit.batches_rig import connected, ended, request, requests, results

from demo.simulator import ApiLimits, running


@pytest.fixture
def server():
    """A simulated API that answers at once, without limits."""
    with running() as server:
        yield server


@pytest.fixture
def batches(server):
    """The real SDK's batches, without retries."""
    with connected(server) as batches:
        yield batches


def outcomes(call: Callable[[], Any], number: int) -> list[int]:
    """Give the statuses of some calls, 200 for those that are well."""
    statuses = []
    for _ in range(number):
        try:
            call()
            statuses.append(200)
        except anthropic.APIStatusError as error:
            statuses.append(error.status_code)
    return statuses


def test_a_wrong_request_is_errored_in_its_results(batches):
    """What is wrong with a request, a stream and an unknown model included, is told in its result, not at creation."""
    wrong = {
        "empty": {"max_tokens": 0},
        "stream": {"stream": True},
        "model": {"model": "unknown-1"},
        "words": {"max_tokens": "many"},
        "asked": {"metadata": {"user_id": "simulate:529"}},
        "right": {},
    }
    batch = batches.create(requests=[request(custom_id, **more) for custom_id, more in wrong.items()])
    counts = ended(batches, batch.id).request_counts
    assert (counts.errored, counts.succeeded) == (5, 1)
    types = {name: r.error.error.type for name, r in results(batches, batch.id).items() if r.type == "errored"}
    invalid = dict.fromkeys(("empty", "stream", "words"), "invalid_request_error")
    assert types == {**invalid, "model": "not_found_error", "asked": "overloaded_error"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([], "requests"),
        ([request("a b")], "custom_id"),
        ([request("x" * 65)], "custom_id"),
        ([request("")], "custom_id"),
        ([request("same"), request("same")], "twice"),
        ([{"custom_id": "a"}], "params"),
        ([{"custom_id": "a", "params": None}], "params"),
        ([None], "read"),
    ],
)
def test_a_wrong_batch_is_refused(server, batches, wrong, told):
    """Too many, too few, or wrongly named requests are a 400 that says so, and no batch."""
    with pytest.raises(anthropic.BadRequestError, match=told):
        batches.create(requests=wrong)
    assert server.batches() == {"calls": {"create 400": 1}, "batches": []}


def test_the_api_fails_by_rate(server, batches):
    """Calls fail with 500, 529 and 429; behind the 500 of a creation there is a batch."""
    server.control(batch_failures=0.5)
    statuses = outcomes(lambda: batches.create(requests=requests(1)), 100)
    assert set(statuses) == {200, 429, 500, 529}
    assert statuses.count(200) == pytest.approx(50, abs=25)
    look = server.batches()
    assert len(look["batches"]) == statuses.count(200) + statuses.count(500)
    assert look["calls"] == {f"create {status}": statuses.count(status) for status in set(statuses)}


@pytest.mark.parametrize(("fault", "status", "created"), [("529", 529, 0), ("server_error", 500, 1)])
def test_a_fault_can_be_asked_for(server, batches, fault, status, created):
    """A header makes one call fail, before or after all has been done."""
    with pytest.raises(anthropic.APIStatusError) as caught:
        batches.create(requests=requests(1), extra_headers={"x-simulate": fault})
    assert (caught.value.status_code, len(server.batches()["batches"])) == (status, created)


def test_results_can_break_off(batches):
    """A stream of results that is cut in the middle is an error for its reader, not a shorter list."""
    batch = batches.create(requests=requests(2_000))
    ended(batches, batch.id)
    with pytest.raises(Exception, match=r"closed|incomplete|peer"):
        list(batches.results(batch.id, extra_headers={"x-simulate": "drop_mid_stream"}))


def test_requests_are_errored_by_rate(server, batches):
    """A part of a batch's requests is errored, and the rest is answered."""
    server.control(batch_errors=0.5)
    counts = ended(batches, batches.create(requests=requests(200)).id).request_counts
    assert counts.errored == pytest.approx(100, abs=40)
    assert counts.errored + counts.succeeded == 200


def test_batches_have_limits_of_their_own():
    """Calls for batches count neither as calls for messages nor their requests; what waits in batches is limited."""
    with running(limits=ApiLimits(rpm=1, itpm=1, batch_queue=15)) as server, connected(server) as batches:
        server.control(batch_latency=60)
        batches.create(requests=requests(10))
        with pytest.raises(anthropic.RateLimitError, match="waiting") as caught:
            batches.create(requests=requests(6))
        assert int(caught.value.response.headers["retry-after"]) >= 1
        batches.create(requests=requests(5))
        server.control(batch_rpm=1)
        assert outcomes(batches.list, 3) == [200, 429, 429]
        assert server.summary()["total"] == 0

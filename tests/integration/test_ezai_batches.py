import json
import time
import urllib.request
from collections import Counter

import anthropic
import pytest
from kit.batches_rig import DEADLINE_S, connected, ended, request, requests, results
from kit.waiting import wait_until

from demo.simulator import running


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


def test_each_request_is_answered_in_any_order(batches):
    """A batch ends with a message for each of its requests, of the tier that costs half, not in their order."""
    batch = batches.create(requests=requests(50))
    assert batch.id.startswith("msgbatch_")
    assert (batch.expires_at - batch.created_at).total_seconds() == pytest.approx(24 * 3600)
    assert (batch.ended_at, batch.results_url, batch.archived_at) == (None, None, None)
    assert ended(batches, batch.id).request_counts.succeeded == 50
    found = results(batches, batch.id)
    assert sorted(found) == sorted(f"job-{number}" for number in range(50))
    assert list(found) != [f"job-{number}" for number in range(50)]
    for custom_id, result in found.items():
        assert result.type == "succeeded"
        assert result.message.content[0].text.startswith(f"You said: {custom_id}…")
        assert result.message.usage.service_tier == "batch"


def test_nothing_is_told_before_the_end(server, batches):
    """While a batch goes on, all of its requests are processing, and it has no results and cannot be deleted."""
    server.control(endless_batch=1)
    batch = batches.create(requests=requests(10))
    wait_until(lambda: server.batches()["batches"][0]["waiting"] == 5, "half of the answers")
    told = batches.retrieve(batch.id)
    assert (told.processing_status, told.results_url) == ("in_progress", None)
    assert (told.request_counts.processing, told.request_counts.succeeded) == (10, 0)
    with pytest.raises(anthropic.AnthropicError, match="in_progress"):
        batches.results(batch.id)
    with pytest.raises(anthropic.BadRequestError):
        batches.delete(batch.id)


def test_a_batch_that_has_ended_can_be_deleted(batches):
    """Deleted, it is not found any more."""
    batch = ended(batches, batches.create(requests=requests(1)).id)
    assert batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        batches.retrieve(batch.id)


def test_a_batch_has_its_latency_and_its_pace(server, batches):
    """Ten requests at 20 a second after 0.2 s take 0.65 s, as do 65 s of clocks that run 100 times faster."""
    server.control(batch_latency=0.2, batch_pace=20)
    slow = ended(batches, batches.create(requests=requests(10)).id)
    assert (slow.ended_at - slow.created_at).total_seconds() > 0.6
    server.control(batch_latency=20, batch_pace=0.2, time_scale=100)
    quick = ended(batches, batches.create(requests=requests(10)).id)
    assert 0.6 < (quick.ended_at - quick.created_at).total_seconds() < 20
    assert (quick.expires_at - quick.created_at).total_seconds() == pytest.approx(864)


def test_a_batch_may_be_larger_than_a_message(batches):
    """More than the 32 MB of a message are taken in."""
    large = request("large", messages=[{"role": "user", "content": "x" * 33_600_000}])
    assert ended(batches, batches.create(requests=[large]).id).request_counts.succeeded == 1


def test_a_cancelled_batch_keeps_what_was_answered(server, batches):
    """After cancelling, some requests are still answered for a while; the rest are canceled, and all have a result."""
    server.control(batch_pace=100, cancel_latency=0.5)
    batch = batches.create(requests=requests(5_000))
    assert batches.cancel(batch.id).processing_status == "canceling"
    assert batches.cancel(batch.id).cancel_initiated_at is not None
    end = ended(batches, batch.id)
    assert (end.ended_at - end.cancel_initiated_at).total_seconds() > 0.45
    types = Counter(result.type for result in results(batches, batch.id).values())
    assert types["succeeded"] > 1
    assert types == {"succeeded": end.request_counts.succeeded, "canceled": end.request_counts.canceled}
    assert types.total() == 5_000
    with pytest.raises(anthropic.BadRequestError):
        batches.cancel(batch.id)


def test_one_batch_expires_and_one_never_ends(server, batches):
    """By their number, one batch answers half and expires after 24 h; one outlives that, and ends when cancelled."""
    server.control(expiring_batch=1, endless_batch=2, time_scale=24 * 3600)
    first, second, third = (batches.create(requests=requests(10)).id for _ in range(3))
    counts = ended(batches, first).request_counts
    assert (counts.succeeded, counts.expired) == (5, 5)
    assert ended(batches, third).request_counts.succeeded == 10
    told = batches.retrieve(second)
    assert (told.processing_status, told.request_counts.processing) == ("in_progress", 10)
    wait_until(lambda: time.time() > told.expires_at.timestamp(), "24 h")
    assert batches.retrieve(second).processing_status == "in_progress"
    batches.cancel(second)
    counts = ended(batches, second).request_counts
    assert (counts.succeeded, counts.canceled) == (5, 5)


def test_a_request_that_hangs_expires_alone(server, batches):
    """A request that is never answered holds up its batch until that expires, with all other answers."""
    server.control(time_scale=24 * 3600)
    batch = batches.create(requests=[*requests(3), request("stuck", metadata={"user_id": "simulate:hang"})])
    assert ended(batches, batch.id).request_counts.succeeded == 3
    assert results(batches, batch.id)["stuck"].type == "expired"


def test_batches_are_listed_by_pages(server, batches):
    """The newest batch comes first; pages go on in both directions; each key sees its own."""
    ids = [batches.create(requests=requests(1)).id for _ in range(5)][::-1]
    assert [batch.id for batch in batches.list(limit=2)] == ids
    page = batches.list(limit=2)
    assert ([batch.id for batch in page.data], page.has_more, page.first_id, page.last_id) == (ids[:2], True, *ids[:2])
    assert [batch.id for batch in batches.list(limit=2, after_id=ids[3]).data] == ids[4:]
    assert [batch.id for batch in batches.list(limit=2, before_id=ids[3]).data] == ids[1:3]
    with pytest.raises(anthropic.BadRequestError, match="limit"):
        batches.list(limit=1_001)
    with connected(server, "sk-other") as others:
        assert list(others.list()) == []
        with pytest.raises(anthropic.NotFoundError):
            others.retrieve(ids[0])


def test_whoever_looks_on_sees_all_batches(server, batches):
    """/_batches has the batches of all keys, and the calls by what they did."""
    batches.create(requests=requests(3))
    list(batches.list())
    with urllib.request.urlopen(f"{server.url}/_batches", timeout=DEADLINE_S) as response:  # noqa: S310
        look = json.load(response)
    assert look["calls"] == {"create 200": 1, "list 200": 1}
    assert look["batches"][0]["request_counts"]["processing"] + look["batches"][0]["request_counts"]["succeeded"] == 3

"""Gates: jobs that the budget cannot admit stay in the broker, in order, and hold up no other model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from broker_kit.hand import Hand
from broker_kit.waiting import eventually
from celery_app.broker.verbs import CLOSE_GATE

from celery_app.metrics.stats import get_queue_stats
from celery_app.routing import MODEL

if TYPE_CHECKING:
    from redis import Redis

#: Milliseconds that a gate is closed for a test that does not wait for it.
LONG_MS = 60_000

#: Seconds for a gate that is closed for a moment, on a busy machine.
SOON_S = 10.0


@pytest.fixture
def client(valkey: Any, broker_url: str) -> Any:
    """A client of the empty broker."""
    assert broker_url
    with valkey.client() as client:
        yield client


def put(app: Any, *names: str, model: str, queue: str = "batch") -> None:
    """Publish jobs of a model, named by their ids."""
    for name in names:
        app.send_task("kit.job", (name,), task_id=name, queue=queue, ignore_result=True, headers={MODEL: model})


def close(client: Redis, lane: str, model: str, wait_ms: int = LONG_MS, pace_ms: int = 1, first: str = "1") -> None:
    """Close a gate."""
    CLOSE_GATE.run(client, ["lanes:gates"], [lane, model, wait_ms, pace_ms, first])


def test_a_closed_gate_lets_other_models_pass(lanes_app: Any, client: Redis) -> None:
    """Jobs of the closed model are set aside; the other model's come in their order."""
    put(lanes_app, "slow-1", "slow-2", model="slow")
    put(lanes_app, "fast-1", model="fast")
    put(lanes_app, "slow-3", model="slow")
    put(lanes_app, "fast-2", model="fast")
    close(client, "batch", "slow")

    assert Hand(client).names() == ["fast-1", "fast-2"]


def test_what_stood_aside_goes_first_and_in_order(lanes_app: Any, client: Redis) -> None:
    """Once the gate opens its jobs come before those that arrived meanwhile, oldest first, returned ones in front."""
    put(lanes_app, "slow-1", "slow-2", "slow-3", model="slow")
    hand = Hand(client)
    [first] = hand.claim()
    close(client, "batch", "slow")
    assert hand.names() == []
    hand.give_back(first)
    assert hand.names() == []
    put(lanes_app, "slow-4", model="slow")
    put(lanes_app, "fast-1", model="fast")
    client.delete("lanes:gates")

    assert hand.names() == ["slow-1", "slow-2", "slow-3", "slow-4", "fast-1"]
    assert client.hgetall("lanes:asides") == {}


def test_a_gate_is_of_one_lane(lanes_app: Any, client: Redis) -> None:
    """That batch has to wait for a model says nothing of critical."""
    put(lanes_app, "b", model="m", queue="batch")
    put(lanes_app, "c", model="m", queue="critical")
    close(client, "batch", "m")

    assert Hand(client).names() == ["c"]


def test_jobs_that_stand_aside_are_counted_and_purged(lanes_app: Any, client: Redis) -> None:
    """Depth, capacity and purge know of them, and the statistics say what they wait for."""
    put(lanes_app, "slow-1", "slow-2", model="slow")
    close(client, "batch", "slow")
    assert Hand(client).names() == []
    lane = get_queue_stats(lanes_app)["lanes"]["batch"]

    assert lane["depth"] == 2
    assert lane["waiting_for"].startswith("the budget of slow")
    with lanes_app.connection_for_write() as connection:
        assert connection.default_channel.queue_purge("batch") == 2
    assert get_queue_stats(lanes_app)["lanes"]["batch"]["depth"] == 0


def test_a_claim_tells_when_the_gate_opens(lanes_app: Any, client: Redis) -> None:
    """An idle worker sleeps until then, and finds the job."""
    put(lanes_app, "slow-1", model="slow")
    close(client, "batch", "slow", wait_ms=300)
    hand = Hand(client)
    assert hand.names() == []

    assert 0 <= hand.next_due_ms <= 300
    eventually(lambda: hand.names() == ["slow-1"], SOON_S, "the gate opens")


def test_one_job_at_a_time_passes_a_gate_that_has_just_opened(lanes_app: Any, client: Redis) -> None:
    """The budget is most likely used up by the first, so the gate closes behind it for its pace."""
    put(lanes_app, "slow-1", "slow-2", model="slow")
    close(client, "batch", "slow", wait_ms=0, pace_ms=LONG_MS)
    hand = Hand(client)
    found: list[str] = []
    eventually(lambda: bool(found.extend(hand.names()) or found), SOON_S, "the gate opens")

    assert found == ["slow-1"]
    assert hand.names() == []


def opens_in(client: Redis, gate: str) -> float:
    """Return the seconds until a gate opens."""
    seconds, microseconds = client.time()
    return int(client.hget("lanes:gates", gate).split()[0]) / 1000 - seconds - microseconds / 1e6


def test_a_gate_opens_when_the_first_job_may_go(client: Redis) -> None:
    """Only the job that is to go first moves a closed gate; those that were told later times leave it."""
    close(client, "batch", "m", wait_ms=20_000, first="0")
    close(client, "batch", "m", wait_ms=LONG_MS, first="0")
    assert 10 < opens_in(client, "batch|m") <= 20

    close(client, "batch", "m", wait_ms=5_000, first="1")
    close(client, "batch", "m", wait_ms=LONG_MS, first="0")
    assert 0 < opens_in(client, "batch|m") <= 5


def test_a_denied_job_comes_before_those_that_were_set_aside_meanwhile(lanes_app: Any, client: Redis) -> None:
    """It is older, and the budget keeps its place for it: were a younger one first, it would be asked in vain."""
    put(lanes_app, "slow-1", "slow-2", model="slow")
    put(lanes_app, "fast-1", model="fast")
    hand = Hand(client)
    [first] = hand.claim()
    close(client, "batch", "slow")
    assert hand.names() == ["fast-1"]
    hand.give_back(first, delay_ms=1)
    client.delete("lanes:gates")

    eventually(lambda: not client.exists("lanes:returns") or hand.claim(0), SOON_S, "the return is due")
    assert hand.names() == ["slow-1", "slow-2"]


def test_nothing_is_set_aside_where_nobody_could_pass(lanes_app: Any, client: Redis) -> None:
    """A lane of one model stays in its list, where kombu, Flower and LLEN count it."""
    put(lanes_app, "slow-1", "slow-2", model="slow")
    close(client, "batch", "slow")
    hand = Hand(client)

    assert hand.names() == []
    assert hand.places("batch") == 2
    put(lanes_app, "fast-1", model="fast")
    assert hand.names() == ["fast-1"]


def test_a_long_backlog_of_one_model_holds_up_no_other(lanes_app: Any, client: Redis) -> None:
    """However many jobs stand before it: each claim goes on where the last one stopped, and rings for the next."""
    put(lanes_app, *(f"slow-{n}" for n in range(1_300)), model="slow")
    put(lanes_app, "fast-1", model="fast")
    close(client, "batch", "slow")
    hand = Hand(client)
    for _ in range(6):
        client.delete("lanes:bell:batch")
        assert hand.names() == []
        assert client.llen("lanes:bell:batch") == 1

    assert hand.names() == ["fast-1"]
    client.delete("lanes:gates")
    assert hand.names(2_000) == [f"slow-{n}" for n in range(1_300)]


def test_a_job_that_says_no_model_waits_for_those_of_its_task(lanes_app: Any, client: Redis) -> None:
    """One task's closed gate says nothing of another task."""
    for task in ("kit.job", "kit.other"):
        lanes_app.send_task(task, task_id=task, queue="normal", ignore_result=True)
    close(client, "normal", "task:kit.job")

    assert Hand(client).names() == ["kit.other"]


@pytest.mark.parametrize("model", ['quo"te', "back\\slash", "модель", "new\nline"])
def test_a_model_of_any_name_has_a_gate(lanes_app: Any, client: Redis, model: str) -> None:
    """A name that JSON writes otherwise is known by its task, to the worker and in the broker."""
    put(lanes_app, "j", model=model)
    close(client, "batch", "task:kit.job")

    assert Hand(client).names() == []


def test_an_entry_that_is_no_gate_holds_up_nobody(lanes_app: Any, client: Redis) -> None:
    """What somebody else wrote there is thrown away."""
    put(lanes_app, "j", model="m")
    client.hset("lanes:gates", "batch|m", "tomorrow")

    assert Hand(client).names() == ["j"]


def test_a_deleted_queue_leaves_nothing_aside(lanes_app: Any, client: Redis) -> None:
    """What waits elsewhere than in its lists goes with it."""
    put(lanes_app, "slow-1", model="slow")
    put(lanes_app, "fast-1", model="fast")
    close(client, "batch", "slow")
    assert Hand(client).names() == ["fast-1"]
    with lanes_app.connection_for_write() as connection:
        queue = lanes_app.amqp.queues["batch"](connection.default_channel)
        queue.declare()  # kombu deletes what it knows the bindings of
        queue.delete()

    assert client.hgetall("lanes:aside_depth") == {}
    client.delete("lanes:gates")
    assert Hand(client).names() == []


def test_a_stock_producers_jobs_are_not_held_up_either(lanes_app: Any, client: Redis) -> None:
    """It notes no models, so the claim looks by itself what stands behind a closed gate."""
    put(lanes_app, "slow-1", "slow-2", model="slow")
    put(lanes_app, "fast-1", model="fast")
    client.delete("lanes:models:batch\x06\x166")
    close(client, "batch", "slow")

    assert Hand(client).names() == ["fast-1"]


def test_an_empty_list_is_no_empty_lane(lanes_app: Any, client: Redis) -> None:
    """Deleting a queue if it is empty leaves one whose jobs are set aside."""
    put(lanes_app, "slow-1", model="slow")
    put(lanes_app, "fast-1", model="fast")
    close(client, "batch", "slow")
    assert Hand(client).names() == ["fast-1"]
    with lanes_app.connection_for_write() as connection:
        queue = lanes_app.amqp.queues["batch"](connection.default_channel)
        queue.declare()
        queue.delete(if_empty=True)
    client.delete("lanes:gates")

    assert Hand(client).names() == ["slow-1"]

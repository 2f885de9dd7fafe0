from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import celery_app
from celery_app.broker.census import census
from celery_app.connection import redis_client
from celery_app.errors import BrokerUnreachable
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL
from celery_app.metrics.events import JobEvent
from celery_app.metrics.histogram import RESOLUTION
from celery_app.metrics.recorder import Recorder
from celery_app.metrics.stats import get_queue_stats
from celery_app.metrics.store import WAITS_SLOT
from celery_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

NO_WAITS = {"avg": None, "p50": None, "p95": None, "p99": None, "max": None}
# How long the test itself may take between submitting and looking.
SLACK_S = 5.0


def submit(app: Any, lane: str, **options: Any) -> None:
    """Submit a job as a web app does."""
    app.send_task("some.task", options.pop("args", ()), queue=lane, **options)


def stripped(text: bytes) -> bytes:
    """Return a message as a stock producer would have written it."""
    message = json.loads(text)
    del message["headers"]["submitted_at"]
    message["properties"].pop("submitted_at", None)
    return json.dumps(message).encode()


def happen(app: Any, kind: Any, lane: str, seconds: Iterable[float] = (0.0,)) -> None:
    """Have a worker of its own record events."""
    recorder = Recorder(app)
    for waited in seconds:
        recorder(JobEvent(kind=kind, lane=lane, task="t", seconds=waited))
    recorder.close()


def test_an_idle_system_has_no_waits(lanes_app: Any) -> None:
    """Where nothing happened the counts are 0 and what cannot be known is None, lane by lane, as JSON can say it."""
    stats = get_queue_stats(lanes_app)
    assert json.loads(json.dumps(stats)) == stats
    assert stats["queue_depth"] == 0
    assert list(stats["lanes"]) == [lane.name for lane in LANES]
    for lane in stats["lanes"].values():
        assert lane.pop("wait_ms") == NO_WAITS
        assert lane.pop("oldest_s") is lane.pop("waiting_for") is None
        assert lane == dict.fromkeys(
            ("depth", "in_flight", "returning", "dead", "processed", "failed", "limited", "throughput_per_min"), 0
        )


def test_the_depth_counts_every_priority(lanes_app: Any) -> None:
    """A job counts as queued in its lane, whatever its priority within it."""
    for priority in range(10):
        submit(lanes_app, "batch", priority=priority)
    submit(lanes_app, "critical")
    stats = get_queue_stats(lanes_app)
    assert {name: lane["depth"] for name, lane in stats["lanes"].items()} == {"critical": 1, "normal": 0, "batch": 10}
    assert stats["queue_depth"] == 11


def test_the_oldest_job_is_found_in_any_priority(lanes_app: Any) -> None:
    """The age is that of the job queued for the longest, though a fresh one goes before it."""
    submit(lanes_app, "normal", priority=9, headers={"submitted_at": time.time() - 100})
    submit(lanes_app, "normal", priority=0)
    lanes = get_queue_stats(lanes_app)["lanes"]
    assert 100 <= lanes["normal"]["oldest_s"] < 100 + SLACK_S
    assert lanes["critical"]["oldest_s"] is None


def test_a_prompt_cannot_pretend_an_age(lanes_app: Any) -> None:
    """A megabyte of text that looks like the header, in arguments and their description, changes nothing."""
    text = '"submitted_at": 1, ' * 50_000
    submit(lanes_app, "critical", args=(text,), argsrepr=text[:1000], headers={"submitted_at": time.time() - 7})
    assert 7 <= get_queue_stats(lanes_app)["lanes"]["critical"]["oldest_s"] < 7 + SLACK_S


def test_a_stock_producers_job_has_no_age(lanes_app: Any) -> None:
    """A job without the header is counted, and its age is not known."""
    submit(lanes_app, "critical")
    client = redis_client(lanes_app)
    client.lset("critical", 0, stripped(client.lindex("critical", 0)))
    lane = get_queue_stats(lanes_app)["lanes"]["critical"]
    assert (lane["depth"], lane["oldest_s"]) == (1, None)


def test_a_clock_that_runs_ahead_makes_no_negative_age(lanes_app: Any) -> None:
    """A job from the future has just been submitted."""
    submit(lanes_app, "critical", headers={"submitted_at": time.time() + 1_000})
    assert get_queue_stats(lanes_app)["lanes"]["critical"]["oldest_s"] == 0


def test_held_returning_and_dead_jobs_are_counted_by_lane(lanes_app: Any) -> None:
    """Each place outside the lists is counted for the lane that the job came from."""
    client = redis_client(lanes_app)
    client.hset("lanes:claims", mapping={"a": "w1|critical", "b": "w2|batch\x06\x166", "c": "w2|batch\x06\x169"})
    client.hset("lanes:claims", "d", "w1|somebody's own queue")
    client.hset("lanes:returned", mapping={"e": 'normal\x06\x163|{"body": "x|y"}', "f": "batch\x06\x166|{}"})
    client.zadd("lanes:returns", {"e": 1, "f": 2})
    client.hset("lanes:dead_lanes", "batch", 4)
    lanes = get_queue_stats(lanes_app)["lanes"]
    places = ("in_flight", "returning", "dead")
    counted = {name: tuple(lane[place] for place in places) for name, lane in lanes.items()}
    assert counted == {"critical": (1, 0, 0), "normal": (0, 1, 0), "batch": (2, 1, 4)}


def test_large_returns_do_not_hold_redis_up(lanes_app: Any) -> None:
    """Of many large returned jobs only some are looked at, and the lanes' numbers still add up to all of them."""
    client = redis_client(lanes_app)
    text = "x" * 1_000_000
    for lane, count in (("normal\x06\x163", 10), ("batch\x06\x166", 30)):
        client.hset("lanes:returned", mapping={f"{lane}{number}": f"{lane}|{text}" for number in range(count)})
    client.config_resetstat()
    counted = census(client, LANES)
    assert client.info("commandstats")["cmdstat_hget"]["calls"] < 20
    assert sum(lane.returning for lane in counted.values()) == pytest.approx(40, abs=1)


def test_waits_are_those_of_all_workers(lanes_app: Any) -> None:
    """Quantiles, average and maximum are those of what several workers recorded, within the histogram's resolution."""
    waits = [number / 1000 for number in range(1, 1_001)]
    for share in (waits[::3], waits[1::3], waits[2::3]):
        happen(lanes_app, "called", "critical", share)
    found = get_queue_stats(lanes_app)["lanes"]["critical"]["wait_ms"]
    expected = {"avg": 500.5, "p50": 500, "p95": 950, "p99": 990, "max": 1_000}
    assert found == pytest.approx(expected, rel=RESOLUTION + 0.001)
    assert found["max"] == 1_000
    assert found["avg"] == 500.5


def test_no_quantile_is_above_the_maximum(lanes_app: Any) -> None:
    """A single call's wait is every figure there is, though its bucket's middle is another."""
    happen(lanes_app, "called", "normal", [0.1234])
    waits = get_queue_stats(lanes_app)["lanes"]["normal"]["wait_ms"]
    assert waits == pytest.approx(dict.fromkeys(NO_WAITS, 123.4), rel=RESOLUTION)
    assert max(waits.values()) == waits["max"] == 123.4


def test_totals_and_throughput(lanes_app: Any) -> None:
    """What was done and refused is counted in total; what was done lately makes the throughput of one lane alone."""
    for kind, count in (("processed", 35), ("failed", 3), ("limited", 2), ("returned", 1)):
        happen(lanes_app, kind, "batch", [0.0] * count)
    lanes = get_queue_stats(lanes_app)["lanes"]
    assert [lanes["batch"][kind] for kind in ("processed", "failed", "limited")] == [35, 3, 2]
    # The minute's oldest slot is taken whole, so the minute has 60 to 70 s.
    assert 35 * 60 / 70 - 0.1 <= lanes["batch"]["throughput_per_min"] <= 35
    assert lanes["normal"]["throughput_per_min"] == lanes["critical"]["processed"] == 0


def test_the_window_leaves_older_waits_out(lanes_app: Any) -> None:
    """Waits from before the window do not count; a longer window finds them."""
    happen(lanes_app, "called", "critical", [0.5])
    client = redis_client(lanes_app)
    (slot,) = client.keys("lanes:metrics:critical:waits:*")
    prefix, _, number = slot.rpartition(b":")
    client.rename(slot, prefix + b":%d" % (int(number) - 200 // WAITS_SLOT))
    assert get_queue_stats(lanes_app, window_s=60)["lanes"]["critical"]["wait_ms"] == NO_WAITS
    assert get_queue_stats(lanes_app, window_s=300)["lanes"]["critical"]["wait_ms"]["max"] == 500


@pytest.mark.parametrize("window", [0, -1, 601])
def test_a_window_that_nothing_is_kept_for(lanes_app: Any, window: float) -> None:
    """A window longer than what is kept, or no window, is refused."""
    with pytest.raises(ValueError, match="600 s"):
        get_queue_stats(lanes_app, window_s=window)


def test_it_is_one_round_trip(lanes_app: Any) -> None:
    """All that is asked of Redis goes there in one piece, and nothing but numbers comes back."""
    submit(lanes_app, "batch", args=("x" * 1_000_000,))
    client = redis_client(lanes_app)
    get_queue_stats(lanes_app)  # connects
    before = client.info("stats")
    get_queue_stats(lanes_app)
    after = client.info("stats")
    # INFO itself is read and answered once in between.
    assert after["total_reads_processed"] - before["total_reads_processed"] == 2
    assert after["total_net_output_bytes"] - before["total_net_output_bytes"] < 20_000


def test_a_prefix_is_before_every_key(lanes_app: Any) -> None:
    """With kombu's global key prefix the same figures are found under the prefixed keys."""
    lanes_app.conf.broker_transport_options = {"global_keyprefix": "shop:"}
    client = redis_client(lanes_app)
    client.lpush("shop:batch\x06\x166", "{}")
    client.hset("shop:lanes:claims", "a", "w|batch\x06\x166")
    happen(lanes_app, "called", "batch", [0.2])
    stats = get_queue_stats(lanes_app)["lanes"]["batch"]
    assert (stats["depth"], stats["in_flight"], stats["wait_ms"]["max"]) == (1, 1, 200)


def test_the_census_takes_any_lanes(lanes_app: Any) -> None:
    """Only the lanes that are asked for are counted, in the order they are asked for."""
    submit(lanes_app, "batch")
    counted = census(redis_client(lanes_app), [BATCH, CRITICAL])
    assert [(name, lane.depth) for name, lane in counted.items()] == [("batch", 1), ("critical", 0)]
    assert NORMAL.name not in counted


def test_without_an_application_it_is_the_current_one(lanes_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current application is asked if it has lanes, and the package's own one otherwise."""
    submit(lanes_app, "batch")
    monkeypatch.setattr("celery._state.get_current_app", lambda: lanes_app)
    assert get_queue_stats()["queue_depth"] == 1
    monkeypatch.setattr("celery._state.get_current_app", object)
    monkeypatch.setattr(sys.modules["celery_app.app"], "app", lanes_app)
    assert get_queue_stats()["queue_depth"] == 1


def test_a_dead_broker_is_one_error() -> None:
    """Without a broker there is no half of the figures, but an error that says where none answers."""
    app = celery_app.create_app(Settings(broker_url="redis://127.0.0.1:1/0", result_backend="redis://127.0.0.1:1/0"))
    with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1"):
        get_queue_stats(app)

import json
import sys
import time
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import pytest
from celery import Celery
from kit.script_client import ScriptClient
from redis.connection import Connection

from celery_app.broker.lane_stats import lane_stats
from celery_app.connections.redis_client import redis_client
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL
from celery_app.metrics.events import JobEvent
from celery_app.metrics.histogram import RESOLUTION
from celery_app.metrics.recorder import Recorder
from celery_app.metrics.stats import get_queue_stats
from celery_app.metrics.store import WAITS_SLOT

NO_WAITS = {"avg": None, "p50": None, "p95": None, "p99": None, "max": None}
# How long the test itself may take between submitting and looking.
SLACK_S = 5.0


def submit(app: Any, lane: str, **options: Any) -> None:
    """Submit a job as a web app does."""
    app.send_task("some.task", options.pop("args", ()), queue=lane, **options)


def submit_by_stock(broker_url: str, lane: str) -> None:
    """Submit a job as a project without the lanes does."""
    with Celery("stock", broker=broker_url, set_as_current=False) as stock:
        stock.send_task("some.task", queue=lane)
        stock.pool.force_close_all()


def happen(app: Any, kind: Any, lane: str, seconds: Iterable[float] = (0.0,)) -> None:
    """Have a worker of its own record events."""
    recorder = Recorder(app)
    for waited in seconds:
        recorder(JobEvent(kind=kind, lane=lane, task="t", seconds=waited))
    recorder.close()


def test_an_idle_system_has_no_waits(lanes_app):
    """Where nothing happened the counts are 0 and what cannot be known is None, lane by lane, as JSON can say it."""
    stats = get_queue_stats(lanes_app)
    assert json.loads(json.dumps(stats)) == stats
    assert stats["queue_depth"] == 0
    assert list(stats["lanes"]) == [lane.name for lane in LANES]
    for lane in stats["lanes"].values():
        assert lane.pop("wait_ms") == lane.pop("call_ms") == NO_WAITS
        assert lane.pop("oldest_s") is lane.pop("waiting_for") is None
        assert lane == dict.fromkeys(
            ("depth", "in_flight", "returning", "dead", "processed", "failed", "limited", "throughput_per_min"), 0
        )


def test_the_depth_counts_every_priority(lanes_app):
    """A job counts as queued in its lane, whatever its priority within it."""
    for priority in range(10):
        submit(lanes_app, "batch", priority=priority)
    submit(lanes_app, "critical")
    stats = get_queue_stats(lanes_app)
    assert {name: lane["depth"] for name, lane in stats["lanes"].items()} == {"critical": 1, "normal": 0, "batch": 10}
    assert stats["queue_depth"] == 11


def test_a_prompt_cannot_pretend_an_age(lanes_app):
    """A megabyte of text that looks like the header, in arguments and their description, changes nothing."""
    text = '"submitted_at": 1, ' * 50_000
    submit(lanes_app, "critical", args=(text,), argsrepr=text[:1000], headers={"submitted_at": time.time() - 7})
    assert 7 <= get_queue_stats(lanes_app)["lanes"]["critical"]["oldest_s"] < 7 + SLACK_S


def test_a_stock_producers_job_has_no_age(lanes_app, broker_url):
    """A job that no worker has taken in yet is counted, and its age is not known; one beside it has its own."""
    submit_by_stock(broker_url, "critical")
    lane = get_queue_stats(lanes_app)["lanes"]["critical"]
    assert (lane["depth"], lane["oldest_s"]) == (1, None)
    submit(lanes_app, "critical", headers={"submitted_at": time.time() - 7})
    lane = get_queue_stats(lanes_app)["lanes"]["critical"]
    assert (lane["depth"], int(lane["oldest_s"])) == (2, pytest.approx(7, abs=SLACK_S))


def test_a_clock_that_runs_ahead_makes_no_negative_age(lanes_app):
    """A job from the future has just been submitted."""
    submit(lanes_app, "critical", headers={"submitted_at": time.time() + 1_000})
    assert 0 <= get_queue_stats(lanes_app)["lanes"]["critical"]["oldest_s"] < SLACK_S


PLACES = ("depth", "in_flight", "returning", "dead")


def counted(app: Any) -> dict[str, tuple[int, ...]]:
    """Return how many jobs each lane has in each place."""
    return {name: tuple(lane[place] for place in PLACES) for name, lane in get_queue_stats(app)["lanes"].items()}


def test_held_returning_and_dead_jobs_are_counted_by_lane(lanes_app):
    """Each job is counted for its lane in the one place where it is, and a queue of one's own is no lane."""
    client = redis_client(lanes_app)
    scripts = ScriptClient(client)
    for lane, count in (("critical", 1), ("normal", 1), ("batch", 5)):
        for _ in range(count):
            submit(lanes_app, lane)
    client.lpush("somebody's own queue", "{}")
    held = scripts.claim(8, queues=("critical", "normal", "batch", "somebody's own queue"))
    assert counted(lanes_app) == {"critical": (0, 1, 0, 0), "normal": (0, 1, 0, 0), "batch": (0, 5, 0, 0)}

    batch = [each for each in held if each.queue == "batch"]
    scripts.requeue(batch[0], delay_ms=60_000)
    for each in batch[1:3]:
        scripts.dead_letter(each, "nobody can read it")
    scripts.requeue(batch[3])
    submit(lanes_app, "normal", countdown=60)
    assert counted(lanes_app) == {"critical": (0, 1, 0, 0), "normal": (0, 1, 1, 0), "batch": (1, 1, 1, 2)}

    for each in held:
        scripts.ack(each)  # what is somewhere else is no longer held
    assert counted(lanes_app) == {"critical": (0, 0, 0, 0), "normal": (0, 0, 1, 0), "batch": (1, 0, 1, 2)}


def test_many_large_jobs_do_not_hold_redis_up(lanes_app):
    """However many jobs there are and however large, only a few of them are looked at, and none of their texts."""
    client = redis_client(lanes_app)
    text = "x" * 200_000
    for lane, count in (("normal", 10), ("batch", 30)):
        for _ in range(count):
            submit(lanes_app, lane, args=(text,))
            submit(lanes_app, lane, args=(text,), countdown=60)
    client.config_resetstat()
    found = lane_stats(client, LANES)
    commands = client.info("commandstats")
    assert commands["cmdstat_hget"]["calls"] < 20
    assert "cmdstat_get" not in commands
    assert {name: (lane.depth, lane.returning) for name, lane in found.items()} == {
        "critical": (0, 0),
        "normal": (10, 10),
        "batch": (30, 30),
    }


def test_counts_of_jobs_that_somebody_has_deleted_do_not_stay(lanes_app):
    """Whoever deletes the jobs by hand finds empty lanes, before and after the next job."""
    client = redis_client(lanes_app)
    submit(lanes_app, "batch")
    submit(lanes_app, "batch", countdown=60)
    client.delete("lanes:jobs", "lanes:texts")
    assert counted(lanes_app)["batch"] == (0, 0, 0, 0)
    submit(lanes_app, "batch")
    assert counted(lanes_app)["batch"] == (1, 0, 0, 0)


def test_waits_are_those_of_all_workers(lanes_app):
    """Quantiles, average and maximum are those of what several workers recorded, within the histogram's resolution."""
    waits = [number / 1000 for number in range(1, 1_001)]
    for share in (waits[::3], waits[1::3], waits[2::3]):
        happen(lanes_app, "called", "critical", share)
    found = get_queue_stats(lanes_app)["lanes"]["critical"]["wait_ms"]
    expected = {"avg": 500.5, "p50": 500, "p95": 950, "p99": 990, "max": 1_000}
    assert found == pytest.approx(expected, rel=RESOLUTION + 0.001)
    assert found["max"] == 1_000
    assert found["avg"] == 500.5


def test_the_length_of_calls_is_told_beside_the_waits(lanes_app):
    """Of calls that are over, whatever came of them, and of none that waited."""
    happen(lanes_app, "settled", "critical", [number / 100 for number in range(1, 101)])
    found = get_queue_stats(lanes_app)["lanes"]["critical"]
    assert found["call_ms"] == pytest.approx({"avg": 505, "p50": 500, "p95": 950, "p99": 990, "max": 1_000}, rel=0.021)
    assert found["wait_ms"] == NO_WAITS


def test_no_quantile_is_above_the_maximum(lanes_app):
    """A single call's wait is every figure there is, though its bucket's middle is another."""
    happen(lanes_app, "called", "normal", [0.1234])
    waits = get_queue_stats(lanes_app)["lanes"]["normal"]["wait_ms"]
    assert waits == pytest.approx(dict.fromkeys(NO_WAITS, 123.4), rel=RESOLUTION)
    assert max(waits.values()) == waits["max"] == 123.4


def test_totals_and_throughput(lanes_app):
    """What was done and refused is counted in total; what was done lately makes the throughput of one lane alone."""
    for kind, count in (("processed", 35), ("failed", 3), ("limited", 2), ("returned", 1)):
        happen(lanes_app, kind, "batch", [0.0] * count)
    lanes = get_queue_stats(lanes_app)["lanes"]
    assert [lanes["batch"][kind] for kind in ("processed", "failed", "limited")] == [35, 3, 2]
    # The minute's oldest slot is taken whole, so the minute has 60 to 70 s.
    assert 35 * 60 / 70 - 0.1 <= lanes["batch"]["throughput_per_min"] <= 35
    assert lanes["normal"]["throughput_per_min"] == lanes["critical"]["processed"] == 0


def test_the_window_leaves_older_waits_out(lanes_app):
    """Waits from before the window do not count; a longer window finds them."""
    happen(lanes_app, "called", "critical", [0.5])
    client = redis_client(lanes_app)
    (slot,) = client.keys("lanes:metrics:critical:waits:*")
    prefix, _, number = slot.rpartition(b":")
    client.rename(slot, prefix + b":%d" % (int(number) - 200 // WAITS_SLOT))
    assert get_queue_stats(lanes_app, window_s=60)["lanes"]["critical"]["wait_ms"] == NO_WAITS
    assert get_queue_stats(lanes_app, window_s=300)["lanes"]["critical"]["wait_ms"]["max"] == 500


@pytest.mark.parametrize("window", [0, -1, 601])
def test_a_window_that_nothing_is_kept_for(lanes_app, window):
    """A window longer than what is kept, or no window, is refused."""
    with pytest.raises(ValueError, match="600 s"):
        get_queue_stats(lanes_app, window_s=window)


def test_it_is_one_round_trip(lanes_app, monkeypatch):
    """All that is asked of Redis goes there in one piece, and nothing but numbers comes back."""
    submit(lanes_app, "batch", args=("x" * 1_000_000,))
    client, steps = redis_client(lanes_app), list[str]()
    get_queue_stats(lanes_app)  # connects
    for name in ("send_packed_command", "read_response"):
        monkeypatch.setattr(Connection, name, noted(steps, name, getattr(Connection, name)))
    before = client.info("stats")
    steps.clear()
    get_queue_stats(lanes_app)
    assert [step for step, _ in groupby(steps)] == ["send_packed_command", "read_response"]
    after = client.info("stats")
    assert after["total_net_output_bytes"] - before["total_net_output_bytes"] < 20_000


def noted(steps: list[str], name: str, method: Any) -> Any:
    """Return a method that notes its name each time."""

    def note(*args: Any, **kwargs: Any) -> Any:
        steps.append(name)
        return method(*args, **kwargs)

    return note


def test_a_prefix_is_before_every_key(lanes_app):
    """With kombu's global key prefix the same figures are found under the prefixed keys."""
    lanes_app.conf.broker_transport_options = {"global_keyprefix": "shop:"}
    client = redis_client(lanes_app)
    for _ in range(2):
        submit(lanes_app, "batch")
    assert len(ScriptClient(client, "shop:").claim(1)) == 1
    client.lpush("shop:batch\x06\x166", "{}")
    happen(lanes_app, "called", "batch", [0.2])
    stats = get_queue_stats(lanes_app)["lanes"]["batch"]
    assert (stats["depth"], stats["in_flight"], stats["wait_ms"]["max"]) == (2, 1, 200)
    own = [key for key in client.keys("*") if not key.startswith((b"shop:", b"_kombu."))]
    assert own == []


def test_the_stats_take_any_lanes(lanes_app):
    """Only the lanes that are asked for are counted, in the order they are asked for."""
    submit(lanes_app, "batch")
    counted = lane_stats(redis_client(lanes_app), [BATCH, CRITICAL])
    assert [(name, lane.depth) for name, lane in counted.items()] == [("batch", 1), ("critical", 0)]
    assert NORMAL.name not in counted


def test_without_an_application_it_is_the_current_one(lanes_app, monkeypatch):
    """The current application is asked if it has lanes, and the package's own one otherwise."""
    submit(lanes_app, "batch")
    monkeypatch.setattr("celery._state.get_current_app", lambda: lanes_app)
    assert get_queue_stats()["queue_depth"] == 1
    monkeypatch.setattr("celery._state.get_current_app", object)
    monkeypatch.setattr(sys.modules["celery_app.app"], "app", lanes_app)
    assert get_queue_stats()["queue_depth"] == 1


def test_the_oldest_job_is_found_at_any_priority_and_behind_many_tenants(lanes_app):
    """A line is in the order of priority, and a tenant who is served for long has his turn last."""
    submit(lanes_app, "batch", headers={"submitted_at": time.time() - 500, "lanes_tenant": "large"}, priority=9)
    for number in range(100):
        submit(lanes_app, "batch", headers={"lanes_tenant": f"tenant-{number:02}"})
    submit(lanes_app, "batch", headers={"lanes_tenant": "large"})
    redis_client(lanes_app).zadd("lanes:tenants:batch:", {"large": 1.0})

    assert 500 <= get_queue_stats(lanes_app)["lanes"]["batch"]["oldest_s"] < 500 + SLACK_S


def test_the_scripts_are_sent_once(lanes_app):
    """A status page that asks every second sends their digests; a server that has forgotten them gets them again."""
    client = redis_client(lanes_app)

    def sent() -> int:
        before = client.info("stats")["total_net_input_bytes"]
        assert get_queue_stats(lanes_app)["queue_depth"] == 1
        return int(client.info("stats")["total_net_input_bytes"] - before)

    submit(lanes_app, "batch")
    client.script_flush()
    first = sent()
    assert sent() < first / 10
    client.script_flush()
    assert sent() == pytest.approx(first, rel=0.1)

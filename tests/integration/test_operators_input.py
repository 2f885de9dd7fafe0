"""What operators see where somebody has written nonsense, or the broker refuses: one line, and never a traceback."""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from kit.server import Server

from celery_app import controls
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.errors import InvalidControl
from celery_app.metrics.explanation import explain
from celery_app.metrics.stats import get_queue_stats

#: Seconds within which a command ends; one that does not has hung.
DEADLINE_S = 60.0

#: A model's name that a shell and a terminal would obey.
SLY = "x';touch pwned;'\x1b]0;mine\x07"


def command(broker: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the lanes to its end."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    env = {**kept, "CELERY_BROKER_URL": broker, "FLOWER_PORT": "1", **env}
    line = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", *words]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def full(tmp_path):
    """A broker without memory: it refuses whatever is written."""
    with Server(tmp_path, durable=False) as server:
        with server.client() as client:
            client.config_set("maxmemory", 1)
        yield server.url


def test_what_the_broker_refuses_is_one_line(full):
    """A full server is an error of one line for whoever wants to pause a lane."""
    done = command(full, "pause", "batch")
    assert done.returncode == 1
    assert "takes no writes" in done.stderr


def test_a_name_is_no_command(lanes_app, broker_url):
    """A model's name is shown as `other` where it is none, and nothing of it is in a command to copy, or a terminal."""
    controls.set_limits(lanes_app, {"rpm": 1}, model="*")
    for _ in range(3):
        Client(lanes_app).submit("batch", model=SLY, max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    for words in (("why", "batch"), ("status",), ("top", "--once")):
        done = command(broker_url, *words)
        assert done.returncode == 0
        assert "touch" not in done.stdout
        assert "\x1b]" not in done.stdout


def test_controls_of_others_are_passed_over(lanes_app):
    """What is no JSON, or of a version to come, hides nothing of what is set."""
    controls.pause(lanes_app, "batch", by="ann")
    odd = {
        "a|b": "not json",
        "pause|x|": "[]",
        "later|a|b": json.dumps({"shape": 2}),
        "model|rpm|m": "7",
        b"\xff|a|b": "{}",
    }
    redis_client(lanes_app).hset("lanes:controls", mapping=odd)
    assert [each.name for each in controls.read_controls(lanes_app)] == ["batch"]
    assert get_queue_stats(lanes_app)["lanes"]["batch"]["waiting_for"]


def test_a_short_pause_ends(lanes_app):
    """Less than a millisecond is not for ever, and more than a year is refused."""
    controls.pause(lanes_app, "batch", for_s=0.0004)
    assert all(each.left_s is not None for each in controls.read_controls(lanes_app))
    with pytest.raises(InvalidControl):
        controls.pause(lanes_app, "batch", for_s=1e308)


@pytest.mark.parametrize(
    ("limits", "whose"),
    [
        ({"rpm": 10**400}, {"model": "*"}),
        ({"capacity": 10**400}, {"lane": "batch"}),
        ({"weight": 1e300}, {"tenant": "acme"}),
        ({"weight": 2}, {"tenant": "\ud800"}),
    ],
)
def test_numbers_and_names_have_bounds(lanes_app, limits, whose):
    """What no script could keep, or count, is refused in words."""
    with pytest.raises(InvalidControl):
        controls.set_limits(lanes_app, limits, **whose)
    assert controls.read_controls(lanes_app) == []


def test_no_id_is_no_job(lanes_app):
    """An empty id is unknown, not the head of some lane."""
    assert explain(lanes_app, "")["state"] == "unknown"


def test_check_passes_over_what_is_no_flower(broker_url):
    """Whatever listens at Flower's port and speaks another protocol is none of the lanes' business."""
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def answer() -> None:
            taken, _ = odd.accept()
            with taken:
                taken.recv(1000)
                taken.sendall(b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f")

        threading.Thread(target=answer, daemon=True).start()
        done = command(broker_url, "check", "--json", FLOWER_PORT=str(odd.getsockname()[1]))
    assert {"broker", "critical"} <= {each["what"] for each in json.loads(done.stdout)}


def test_a_call_without_a_key_is_a_failure(broker_url):
    """Whoever asks for a call in CI, and has no key there, does not see a green light."""
    done = command(broker_url, "check", "--json", "--call")
    assert done.returncode == 1
    assert [each["level"] for each in json.loads(done.stdout) if each["what"] == "API"] == ["fail"]

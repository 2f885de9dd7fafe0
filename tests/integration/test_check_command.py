"""``celery -A proj lanes check``: each thing that may be wrong is found and told in a line, with what to do."""

import json
import os
import subprocess
import sys

import pytest
from kit.server import Server
from kit.waiting import wait_until
from kit.worker import worker

from demo.simulator import running

#: Seconds within which a command ends; one that does not has hung.
DEADLINE_S = 60.0

KEY = "sk-canary-0123456789"


def run(broker: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; no key and no password is in what it says."""
    line = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", "check", *words]
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    # Of this test's own, whatever else runs on the machine.
    env = {**kept, "CELERY_BROKER_URL": broker, "FLOWER_PORT": "1", "EZAI_API_KEY": KEY, **env}
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert "Traceback" not in done.stderr
    for secret in ("canary", "s3cret"):
        assert secret not in done.stdout + done.stderr
    return done


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, list[dict[str, str]]]:
    """Return what was found, by what was looked at; the exit code is 1 if any of it is a failure."""
    found: dict[str, list[dict[str, str]]] = {}
    for each in json.loads(done.stdout):
        found.setdefault(each["what"], []).append(each)
        assert each["level"] == "ok" or each["advice"]
    assert done.returncode == any(each["level"] == "fail" for all_of in found.values() for each in all_of)
    return found


def levels(found: dict[str, list[dict[str, str]]], what: str) -> list[str]:
    """Return the levels of what was found."""
    return [each["level"] for each in found.get(what, [])]


def test_all_is_well_with_a_worker(valkey, tmp_path):
    """A broker, a worker for all lanes and a key that the API takes: no failure, and a line for each finding."""
    broker = valkey.url(12)
    with valkey.client(12) as redis, running() as api:
        redis.flushdb()
        redis.config_set("maxmemory-policy", "noeviction")
        env = {"EZAI_API_KEY": KEY, "EZAI_BASE_URL": api.url}
        with worker(tmp_path, "-c", "2", CELERY_BROKER_URL=broker, **env):
            done = run(broker, "--call", "--json", EZAI_BASE_URL=api.url)
            found = findings(done)
            words = run(broker, EZAI_BASE_URL=api.url)
    assert (done.returncode, done.stderr) == (0, "")
    for what in ("settings", "broker", "memory", "critical", "normal", "batch", "API"):
        assert levels(found, what) == ["ok"], found[what]
    assert levels(found, "persistence") == ["warn"]
    assert "1 output tokens of claude-haiku-4-5" in found["API"][0]["words"]
    assert {each["words"].split()[0] for each in found["version"]} >= {"celery", "kombu", "redis"}
    assert [line.split()[0] for line in words.stdout.splitlines()].count("ok") == len(words.stdout.splitlines()) - 1


def test_a_key_that_the_api_refuses_fails(broker_url):
    """The key is called by its lanes, never by what it is; without ``--call`` nobody is asked."""
    with running() as api:
        api.control(model_forbidden=True)
        refused = findings(run(broker_url, "--call", "--json", EZAI_BASE_URL=api.url))
        unasked = findings(run(broker_url, "--json", EZAI_BASE_URL=api.url))
    assert levels(refused, "API") == ["fail"]
    assert "the key of critical, normal, batch" in refused["API"][0]["words"]
    assert "API" not in unasked


def test_an_api_that_is_not_there_fails(broker_url, dead_port):
    """The base URL is what has to be mended."""
    url = f"http://127.0.0.1:{dead_port}"
    found = findings(run(broker_url, "--call", "--json", EZAI_BASE_URL=url))
    assert levels(found, "API") == ["fail"]
    assert "EZAI_BASE_URL" in found["API"][0]["advice"]


def test_a_broker_that_is_away_fails(dead_port):
    """What is in it is left out."""
    found = findings(run(f"redis://:s3cret@127.0.0.1:{dead_port}/0", "--json"))
    assert levels(found, "broker") == ["fail"]
    assert "memory" not in found


def test_wrong_settings_fail_all_at_once(broker_url):
    """Each has a line of its own, by its name."""
    found = findings(run(broker_url, "--json", EZAI_RPM="many", LANES_BATCH_FLOOR="7"))
    told = [each["words"] for each in found["settings"]]
    assert levels(found, "settings") == ["fail", "fail"]
    assert sorted(words.partition(":")[0] for words in told) == ["EZAI_RPM", "LANES_BATCH_FLOOR"]


def test_lanes_without_a_worker_warn_until_jobs_wait(lanes_app, broker_url):
    """Nobody serves them: that is a failure where somebody waits."""
    lanes_app.send_task("some.task", queue="batch")
    found = findings(run(broker_url, "--json"))
    assert [levels(found, lane) for lane in ("critical", "normal", "batch")] == [["warn"], ["warn"], ["fail"]]
    assert found["batch"][0]["advice"] == "start one: celery -A celery_app worker -Q batch -n batch@%h -c 20"


@pytest.mark.parametrize("durable", [True, False])
def test_a_server_that_may_evict_fails(tmp_path, durable):
    """Its memory policy is named with the command that mends it; and whether it outlives a restart."""
    with Server(tmp_path, durable=durable) as server:
        with server.client() as redis:
            redis.config_set("maxmemory-policy", "allkeys-lru")
        found = findings(run(server.url, "--json"))
    assert levels(found, "memory") == ["fail"]
    assert "CONFIG SET maxmemory-policy noeviction" in found["memory"][0]["advice"]
    assert levels(found, "persistence") == ["ok" if durable else "warn"]


def test_a_master_that_takes_writes_without_its_replicas_warns(tmp_path):
    """A failover loses what it takes then; one that would refuse them is in order."""
    with Server(tmp_path) as master, Server(tmp_path, f"replicaof 127.0.0.1 {master.port}"), master.client() as redis:
        wait_until(lambda: redis.info("replication")["connected_slaves"], "the replica is there")
        assert levels(findings(run(master.url, "--json")), "replicas") == ["warn"]
        redis.config_set("min-replicas-to-write", 1)
        wait_until(lambda: redis.info("replication").get("min_slaves_good_slaves"), "it is in step")
        assert levels(findings(run(master.url, "--json")), "replicas") == ["ok"]


def test_no_key_warns(broker_url):
    """A web process needs none, so that it is no failure."""
    found = findings(run(broker_url, "--json", EZAI_API_KEY=""))
    assert levels(found, "settings") == ["warn"]

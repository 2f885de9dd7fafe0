"""A real Prometheus reads the real exporter with the files of deploy/, and promtool checks them."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_app.metrics.prometheus import LanesCollector
from demo.ports import free_port

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
#: Seconds for Prometheus to start, scrape and evaluate; it does within two.
DEADLINE_S = 60.0

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
with_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)"
)
with_prometheus = pytest.mark.skipif(
    PROMETHEUS is None, reason="Prometheus is not installed (Debian: apt install prometheus)"
)


@with_promtool
@pytest.mark.parametrize("words", ["check config deploy/prometheus.yml", "test rules tests/acceptance/alerts_test.yml"])
def test_promtool_agrees(words):
    """The configuration and the rules are right, and alerts come when they should and not else."""
    line = [str(PROMTOOL), *words.split()]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def queries() -> list[str]:
    """Return all that the alerts, the dashboard and the autoscaler ask for."""
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))
    board = json.loads((DEPLOY / "grafana" / "lanes.json").read_text(encoding="utf-8"))
    scaled = yaml.safe_load_all((DEPLOY / "kubernetes" / "scaling.yaml").read_text(encoding="utf-8"))
    return [
        *(rule["expr"] for group in rules["groups"] for rule in group["rules"]),
        *(target["expr"] for panel in board["panels"] for target in panel["targets"]),
        *(trigger["metadata"]["query"] for each in scaled for trigger in each["spec"]["triggers"]),
    ]


def test_each_metric_that_is_asked_for_is_served(lanes_app):
    """No alert is silent, no panel empty and no lane unscaled for a name that is spelt otherwise."""
    served = {
        f"{family.name}{suffix}"
        for family in LanesCollector(lanes_app).collect()
        for suffix in {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
    }
    asked = {name for query in queries() for name in re.findall(r"\blanes_[a-z_]+", query)}
    assert asked - served == set()


class Prometheus:
    """A running server."""

    def __init__(self, port: int) -> None:
        """Take its port."""
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **query: str) -> Any:
        """Return the data of an answer."""
        url = f"{self._url}/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own loopback URL
            return json.load(answer)["data"]

    def values(self, query: str) -> dict[str, float]:
        """Return lane -> value."""
        return {
            each["metric"].get("lane", ""): float(each["value"][1]) for each in self.get("query", query=query)["result"]
        }


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition that has to come true."""
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            if condition():
                return
        except OSError:
            pass  # it is about to listen
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.1)


@contextmanager
def process(line: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a process for as long as the block."""
    started = subprocess.Popen(line, text=True, **options)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with our configuration, on another target and every second."""
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    path, port = folder / "prometheus.yml", free_port()
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    line = [str(PROMETHEUS), f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}"]
    with (
        (folder / "log").open("w") as log,
        process([*line, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log),
    ):
        yield Prometheus(port)


@with_prometheus
def test_prometheus_reads_the_exporter(lanes_app, broker_url, tmp_path):
    """It takes each scrape whole, has the lanes' figures, and can evaluate each rule, panel and trigger."""
    for _ in range(3):
        lanes_app.send_task("some.task", queue="batch")
    line = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", "exporter", "--port", "0"]
    env = {**os.environ, "CELERY_BROKER_URL": broker_url}
    with process(line, env=env, stdout=subprocess.PIPE) as exporter:
        assert exporter.stdout is not None
        target = re.search(r"http://([^/]+)/", exporter.stdout.readline())[1]  # type: ignore[index]
        with prometheus(target, tmp_path) as server:
            wait_until(lambda: server.values("lanes_jobs_queued").get("batch") == 3, "the lanes' figures")
            assert server.values("lanes_up") == {"": 1}
            (scraped,) = server.get("targets")["activeTargets"]
            assert (scraped["health"], scraped["lastError"]) == ("up", "")
            for query in queries():
                server.get("query", query=query.replace("$__rate_interval", "1m"))

            def health() -> set[str]:
                groups = server.get("rules")["groups"]
                return {rule["health"] for group in groups for rule in group["rules"]}

            wait_until(lambda: health() == {"ok"}, "an evaluation of all rules")
            wait_until(lambda: "LanesNoWorker" in alerts(server), "the alert for a lane without a worker")


def alerts(server: Prometheus) -> set[str]:
    """Return the names of those that are pending or firing."""
    return {each["labels"]["alertname"] for each in server.get("alerts")["alerts"]}

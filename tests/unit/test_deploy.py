"""deploy/kubernetes starts what README starts, stops it late enough, and scales each lane by what it wants."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_app import LANES
from celery_app.lanes import Lane

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OBJECTS: list[dict[str, Any]] = [
    each for path in KUBERNETES for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
each_lane = pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.name)

#: Seconds from SIGTERM to the call timeout of the call that began last: its result has to be stored, too.
STORING_S = 10


def found(kind: str, name: str) -> dict[str, Any]:
    """Return an object of Kubernetes."""
    (one,) = [each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return one


def pod(lane: Lane) -> dict[str, Any]:
    """Return what the pods of a lane are."""
    spec: dict[str, Any] = found("Deployment", f"lanes-{lane.name}")["spec"]["template"]["spec"]
    return spec


def command(lane: Lane) -> list[str]:
    """Return what a lane's pods run."""
    (container,) = pod(lane)["containers"]
    words: list[str] = container["command"]
    return words


def metrics_in(text: str) -> set[str]:
    """Return the metrics that a text names."""
    return set(re.findall(r"\blanes_[a-z_]+", text))


@each_lane
def test_a_lane_has_workers_that_are_started_as_readme_says(lane):
    """Its queue and its node name are its own, in the form that README has for critical."""
    words = f"celery -A celery_app worker -Q {lane.name} -n {lane.name}@%h"
    assert words.replace(lane.name, "critical") in README
    assert " ".join(command(lane)).startswith(words)


@each_lane
def test_a_worker_is_not_killed_in_the_midst_of_a_call(lane):
    """After SIGTERM there is time for the longest call that the lane allows, and to store its result."""
    assert pod(lane)["terminationGracePeriodSeconds"] >= lane.call_timeout + STORING_S


@each_lane
def test_a_lane_is_scaled_by_its_own_slots(lane):
    """Pods are as many as the busy and the wanted slots of the lane take, by the slots that a pod really has."""
    scaled = found("ScaledObject", f"lanes-{lane.name}")["spec"]
    (trigger,) = scaled["triggers"]
    words, query = command(lane), trigger["metadata"]["query"]
    assert scaled["scaleTargetRef"]["name"] == found("Deployment", f"lanes-{lane.name}")["metadata"]["name"]
    assert trigger["metadata"]["threshold"] == words[words.index("-c") + 1]
    assert metrics_in(query) == {"lanes_slots_wanted", "lanes_jobs_in_flight"}
    assert {*re.findall(r'lane="(\w+)"', query)} == {lane.name}
    assert trigger["metadata"]["ignoreNullValues"] == "false"  # else a Prometheus that is away ends all workers
    assert scaled["fallback"]["replicas"] >= scaled["minReplicaCount"] > 0


@each_lane
def test_a_disruption_leaves_a_lane_its_workers(lane):
    """The budget is that of the lane's pods, and lets a drained node take one even where there are the fewest."""
    rules = found("PodDisruptionBudget", f"lanes-{lane.name}")["spec"]
    labels = found("Deployment", f"lanes-{lane.name}")["spec"]["template"]["metadata"]["labels"]
    assert rules["selector"]["matchLabels"] == labels
    fewest = found("ScaledObject", f"lanes-{lane.name}")["spec"]["minReplicaCount"]
    assert rules.get("minAvailable", 0) < fewest


def test_no_secret_is_written_down():
    """Keys and the broker's address, which has a password, come from a Secret that is made elsewhere."""
    assert not [each for each in OBJECTS if each["kind"] == "Secret"]
    for each in OBJECTS:
        if each["kind"] == "Deployment":
            for container in each["spec"]["template"]["spec"]["containers"]:
                assert all("secretKeyRef" in variable["valueFrom"] for variable in container["env"])


def test_the_exporter_is_reached_where_it_listens():
    """Pod, service and annotation name one port, and it answers to more than its own pod."""
    exporter = found("Deployment", "lanes-exporter")["spec"]["template"]
    (container,) = exporter["spec"]["containers"]
    words = container["command"]
    port = words[words.index("--port") + 1]
    assert words[: words.index("--host")] == ["celery", "-A", "celery_app", "lanes", "exporter"]
    assert words[words.index("--host") + 1] == "0.0.0.0"  # noqa: S104 - within the pod
    assert {int(port)} == {
        container["ports"][0]["containerPort"],
        found("Service", "lanes-exporter")["spec"]["ports"][0]["port"],
    }
    assert exporter["metadata"]["annotations"]["prometheus.io/port"] == port
    assert f"127.0.0.1:{port}" in (DEPLOY / "prometheus.yml").read_text(encoding="utf-8")


def test_the_dashboard_is_one():
    """Each panel asks the Prometheus that its reader chooses."""
    board = json.loads((DEPLOY / "grafana" / "lanes.json").read_text(encoding="utf-8"))
    (variable,) = board["templating"]["list"]
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {f"${{{variable['name']}}}"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all(target["expr"] for panel in board["panels"] for target in panel["targets"])

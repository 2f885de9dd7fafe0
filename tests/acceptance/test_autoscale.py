"""The workers of a day follow the slots that the exporter says are wanted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from celery_app.metrics.slots import TARGETS

ROOT = Path(__file__).parents[2]

#: Seconds for a day; it takes two minutes of the processor.
DEADLINE_S = 1_800


@pytest.mark.slow
def test_no_worker_is_started_for_what_only_the_limit_holds_up():
    """Of a day with a limit and an outage: no more pods than the limit feeds, none while it is shut, all in time."""
    line = [sys.executable, str(ROOT / "benchmarks" / "autoscale.py"), "--json"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE_S, check=True, cwd=ROOT)
    figures = json.loads(result.stdout)
    slots, depth, useful = figures["slots"], figures["depth"], figures["useful_batch_pods"]
    # How long calls take is a mean of some minutes, which is off now and then.
    most = 1.3 * useful
    assert max(slots["most_batch_pods"]["3 h"], slots["most_batch_pods"]["20 h"]) <= most
    assert most < slots["most_batch_pods"]["15 h"] < depth["most_batch_pods"]["15 h"]
    assert slots["started_while_shut"] == 0
    # All lanes, all day: as long as the API gets what the limit lets through, and a lane has no job of another model.
    assert slots["looks_while_only_the_limit_was_short"] > 100
    assert set(slots["pods_asked_for_then"].values()) == {0}
    assert slots["drained_min"]["15 h"] <= 2 * TARGETS["batch"] / 60
    # The half hour in which the API answers nobody is one job in fifty.
    assert all(slots["wait_p95_s"][lane] <= 2 * TARGETS[lane] for lane in ("critical", "normal"))
    assert slots["pod_hours"] < depth["pod_hours"] / 2

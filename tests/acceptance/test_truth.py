"""What operators are told is so, by the simulated API's own notes: benchmarks against what they have to show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

#: Seconds for a benchmark; each takes two minutes on an idle machine.
DEADLINE_S = 1_200

pytestmark = pytest.mark.slow


def figures(benchmark: str, *options: str) -> Any:
    """Run a benchmark to its end; return what it prints."""
    line = [sys.executable, str(ROOT / "benchmarks" / f"{benchmark}.py"), "--json", *options]
    done = subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE_S, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_status_tells_the_truth_within_5_percent() -> None:
    """Waits, calls, throughput and depth of 5,000 jobs in four workers."""
    found = figures("status_truth")
    assert found["jobs"] == 5_000
    assert [row for row in found["rows"] if row["off"] > 0.05] == []


def test_nine_jobs_of_ten_leave_when_they_were_told_within_a_factor_of_1_5() -> None:
    """Of three lanes, with tenants and models, while the API's limits are what is short; and all of them are told."""
    found = figures("forecast")["all"]
    assert found["jobs"] >= 500
    assert found["untold"] == 0
    assert found["good"] >= 0.9


def test_a_change_holds_for_all_workers_within_half_a_second() -> None:
    """A lower limit, a higher one, and a pause, after which nothing starts."""
    found = figures("controls_hold")
    for name in ("limit 600", "limit 3000"):
        assert found[name]["calls"] <= found[name]["allowed"]
        assert found[name]["of_the_limit"] > 0.8
    assert found["pause"]["calls_after_that"] == 0
    assert found["pause"]["resumed_after_s"] < 0.5


def test_the_metrics_cost_at_most_2_percent_of_the_throughput() -> None:
    """By the processor's time for a job, on and off by turns in one worker."""
    found = figures("metrics_cost")["throughput_on_by_off"]
    assert max(found["by_cpu"], found["by_least_cpu"]) >= 0.98


def test_a_look_at_a_million_jobs_of_a_thousand_tenants_takes_at_most_20_ms() -> None:
    """Of the processor, here and in Redis: a scrape, a status, and a job's forecast."""
    found = figures("exporter_scrape")
    assert {name: row["busy"] for name, row in found.items() if row["busy"] > 20} == {}

"""The first moments of a web process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("way", ["submit", "stream", "apply", "ask"])
def test_threads_that_begin_a_process_all_find_it_configured(way, broker_url):
    """Of 50 threads that begin a process with the same call, none meets a half-made configuration."""
    environ = {**os.environ, "CELERY_BROKER_URL": broker_url, "LANES_CRITICAL_DEADLINE": "1", "EZAI_API_KEY": "test"}
    for _ in range(2):
        command = [sys.executable, str(HERE / "first_use.py"), way]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.strip() == "none failed", done.stderr[-2_000:]

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import anthropic
import pytest
from kit.waiting import wait_until

from demo.simulator import running

COMMAND = [sys.executable, "-m", "demo.simulator"]
# A process starts and stops well within this; one that does not has hung.
DEADLINE_S = 10.0


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run the command, and give the process and its ready line."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, *options], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def open_stream(url: str) -> Any:
    """Begin a stream that would last for minutes."""
    params = {"model": "m", "max_tokens": 9_999, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    request = urllib.request.Request(f"{url}/v1/messages", json.dumps(params).encode(), {"x-api-key": "k"})  # noqa: S310
    return urllib.request.urlopen(request, timeout=DEADLINE_S)  # noqa: S310


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_is_ready_and_stops_when_told(number):
    """One line of JSON tells the URL; a signal ends the process with 0 at once, open streams or not."""
    with started("--tokens-per-second", "10", "--output-tokens", "9999") as (process, ready):
        assert ready["pid"] == process.pid
        with open_stream(ready["url"]) as stream:
            assert stream.readline() == b"event: message_start\n"
            process.send_signal(number)
            assert process.wait(DEADLINE_S) == 0
        out, err = process.communicate()
        assert (out, err) == ("", "")


def test_a_process_ships_and_writes_a_bill():
    """The command's process takes batches of the real SDK, at the pace and the prices of its options."""
    prices = '{"*haiku*": {"input": 0, "output": 1000}}'
    with started("--batch-pace", "1000", "--prices", prices, "--key", "sk-test") as (_, ready):
        with anthropic.Anthropic(base_url=ready["url"], api_key="sk-test", max_retries=0) as client:
            asked = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
            client.messages.create(**asked)
            batches = client.messages.batches
            batch = batches.create(requests=[{"custom_id": f"job-{n}", "params": asked} for n in range(10)])
            wait_until(lambda: batches.retrieve(batch.id).processing_status == "ended", "its end")
            assert {result.result.type for result in batches.results(batch.id)} == {"succeeded"}
        with urllib.request.urlopen(f"{ready['url']}/_bill") as response:  # noqa: S310
            bill = json.load(response)
    assert {row["kind"]: row["dollars"] for row in bill["rows"]} == {"live": 0.009, "batch": 0.045}


def test_options_are_the_fields():
    """Each field of behaviour and limits is an option, and limits of models are given as JSON."""
    options = ("--rpm", "1200", "--latency", "0.2", "--no-headers", "--limits", '{"*haiku*": {"itpm": 5000}}')
    with started(*options) as (_, ready), urllib.request.urlopen(f"{ready['url']}/_control") as response:  # noqa: S310
        settings = json.load(response)
    assert settings["behaviour"]["latency"] == 0.2
    assert settings["behaviour"]["headers"] is False
    assert settings["limits"]["*"]["rpm"] == 1_200
    assert settings["limits"]["*haiku*"]["itpm"] == 5_000


def test_a_taken_port_is_one_clear_line():
    """A port that is taken ends the process with 1 and one line that says so."""
    with running() as server:
        port = str(urlsplit(server.url).port)
        result = subprocess.run(
            [*COMMAND, "--port", port], capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert port in result.stderr


def test_it_can_end_with_its_parent():
    """A server whose parent has died does not stay behind."""
    parent = (
        "import subprocess, sys;"
        f"child = subprocess.Popen({[*COMMAND, '--exit-with-parent']!r}, stdout=subprocess.PIPE, text=True);"
        "print(child.stdout.readline(), end='', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
    address = urlsplit(ready["url"])
    deadline = time.monotonic() + DEADLINE_S
    while listens(str(address.hostname), address.port or 0):
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.02)


def listens(host: str, port: int) -> bool:
    """Whether anybody listens on a port."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False

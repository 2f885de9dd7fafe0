"""The simulated API's Message Batches, through the real SDK."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic

from demo.simulator import RunningServer
from kit.waiting import wait_until

KEY = "sk-ant-test-0123456789"
# For what takes milliseconds: a call that waits longer has failed.
DEADLINE_S = 10.0


@contextmanager
def connected(server: RunningServer, key: str = KEY) -> Iterator[Any]:
    """Give the SDK's batches of a key."""
    with anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=DEADLINE_S) as client:
        yield client.messages.batches


def request(custom_id: str, **more: Any) -> Any:
    """Give one request of a batch."""
    params = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": custom_id}], **more}
    return {"custom_id": custom_id, "params": params}


def requests(number: int) -> list[Any]:
    """Give some requests."""
    return [request(f"job-{each}") for each in range(number)]


def ended(batches: Any, batch_id: str) -> Any:
    """Wait until a batch has ended, and give it."""
    wait_until(lambda: batches.retrieve(batch_id).processing_status == "ended", "its end")
    return batches.retrieve(batch_id)


def results(batches: Any, batch_id: str) -> dict[str, Any]:
    """Give the results of a batch by custom id; each is there once."""
    lines = list(batches.results(batch_id))
    found = {line.custom_id: line.result for line in lines}
    assert len(found) == len(lines)
    return found

"""What a contender has to do, and the call that all of them make in the same way."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import anthropic

if TYPE_CHECKING:
    from rig import Rig

#: Requests a second of the API where it has a limit; the model.
RATE, MODEL = 20, "bench-model"
#: What is tried again: the SDK's own retries are off, so that all contenders decide it by themselves.
TRANSIENT = (anthropic.RateLimitError, anthropic.InternalServerError)


class Contender:
    """One way to run jobs in lanes.

    Attributes:
        failure: what a worker's log says once for each job that it gives up.
        alone: whether it has one process for all, so that no part of it can be killed.
    """

    failure, alone = "", False

    def __init__(self, rig: Rig) -> None:
        """Take the broker and the API."""
        self.rig = rig

    def start(self, reserved: int, shared: int, *, limited: bool) -> None:
        """Start workers: slots for critical alone, slots for all lanes, and whether the API has a limit of `RATE`."""
        raise NotImplementedError

    def submit(self, lane: str, params: dict[str, Any], tenant: str = "") -> None:
        """Have one call made, of a tenant where the contender knows tenants."""
        raise NotImplementedError

    def fill(self, jobs: int, params: dict[str, Any] | None = None) -> None:
        """Put so many copies of one job into batch as fast as can be: of a call, or of one that does nothing."""
        raise NotImplementedError

    def add_worker(self, name: str, slots: int) -> None:
        """Start one more worker for all lanes."""
        raise NotImplementedError

    def submit_nothing(self, jobs: int) -> None:
        """Queue jobs that do nothing in batch, one by one."""
        raise NotImplementedError

    def failed(self) -> int:
        """Return how many jobs were given up."""
        return self.rig.logged(self.failure)

    def left(self) -> int:
        """Return how many jobs are queued or held by workers."""
        raise NotImplementedError


def parameters(name: str, tokens: int = 50, model: str = MODEL) -> dict[str, Any]:
    """Return the parameters of a call whose prompt has about so many tokens; the API's log has its name."""
    messages = [{"role": "user", "content": "four" * tokens}]
    return {"model": model, "max_tokens": 50, "messages": messages, "metadata": {"user_id": name}}


def _options() -> dict[str, Any]:
    return {"api_key": os.environ["EZAI_API_KEY"], "base_url": os.environ["EZAI_BASE_URL"], "max_retries": 0}


@functools.cache
def client() -> anthropic.Anthropic:
    """Return this process's client."""
    return anthropic.Anthropic(**_options())


@functools.cache
def async_client() -> anthropic.AsyncAnthropic:
    """Return this process's client for an event loop."""
    return anthropic.AsyncAnthropic(**_options())


def retry_after(error: anthropic.APIStatusError) -> float:
    """Return the seconds that a 429 asks to wait; one where nobody says."""
    return float(error.response.headers.get("retry-after", 1))

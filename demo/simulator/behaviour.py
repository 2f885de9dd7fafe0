"""Behaviour: how the simulated API answers, apart from its limits."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import TYPE_CHECKING, Any, TypeVar

from demo.simulator.faults import MID_STREAM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")

# Field that does it to every call -> the fault.
SWITCHES = {"outage": "overloaded", "spend_limit": "spend_limit", "model_forbidden": "model_forbidden"}

# What a call to the batches API fails with, by rate.
BATCH_FAULTS = ("server_error", "overloaded", "429")
SLOWEST = 1e-6  # a time scale of 0 would divide by zero


class InvalidChange(ValueError):
    """A change names a field that does not exist, or gives it a value that it cannot have."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How the simulated API answers. Rates are fractions of all calls, 0 to 1; together they are at most 1.

    Attributes:
        latency: seconds until the first byte of an answer (of a whole answer, when not streaming), mean.
        jitter: seconds by which a latency may differ from its mean, either way, uniformly.
        prompt_tokens_per_second: pace at which a prompt is read on top of that, but for what is in a cache; 0
            reads all tokens at once.
        tokens_per_second: pace of each stream; 0 sends all tokens at once.
        output_tokens: tokens of an answer; never more than the call's max_tokens.
        headers: send anthropic-ratelimit-* and retry-after; False is a gateway that strips them (hidden limits).
        outage: every call gets 529.
        spend_limit: every call gets the 429 of an enforced spend limit, without retry-after.
        model_forbidden: every call gets the 403 of a model that its key may not call.
        server_error_rate: rate of 500 api_error.
        overloaded_rate: rate of 529 overloaded_error.
        drop_mid_stream_rate: rate of streams, a batch's results too, whose connection closes in the middle.
        batch_latency: seconds until the first request of a batch is answered.
        batch_pace: requests of one batch that are answered in a second; 0 answers all of them at once.
        batch_failures: part of the calls to the batches API that fail, a third each with 500, 529 and 429. The 500
            comes when all has been done: a batch whose creation "failed" with it is there.
        batch_errors: part of a batch's requests that are errored.
        cancel_latency: seconds from asking for a batch to be cancelled until it is; what it answers until then counts.
        expiring_batch: the number (1 is the first one created) of the batch that answers half and expires; 0 is none.
        endless_batch: the number of the batch that answers half and never ends, unless it is cancelled.
        time_scale: how many times faster the clocks of batches and prompt caches run: 3600 makes an hour a second.
    """

    latency: float = 0.0
    jitter: float = 0.0
    prompt_tokens_per_second: float = 0.0
    tokens_per_second: float = 0.0
    output_tokens: int = 16  # enough for a stream to have a middle, few enough for a test to be quick
    headers: bool = True
    outage: bool = False
    spend_limit: bool = False
    model_forbidden: bool = False
    server_error_rate: float = 0.0
    overloaded_rate: float = 0.0
    drop_mid_stream_rate: float = 0.0
    batch_latency: float = 0.0
    batch_pace: float = 0.0
    batch_failures: float = 0.0
    batch_errors: float = 0.0
    cancel_latency: float = 0.0
    expiring_batch: int = 0
    endless_batch: int = 0
    time_scale: float = 1.0

    def fault(self, *, streaming: bool) -> str | None:
        """Give what goes wrong with a call that asks for nothing; mid-stream faults befall only streams."""
        for switch, fault in SWITCHES.items():
            if getattr(self, switch):
                return fault
        point = random.random()
        for fault in RATED:
            point -= getattr(self, f"{fault}_rate")
            if point < 0:
                return fault if streaming or fault not in MID_STREAM else None
        return None

    def batch_fault(self, *, streaming: bool) -> str | None:
        """Give what goes wrong with a call to the batches API; `streaming` is one for results."""
        for switch in ("outage", "spend_limit"):
            if getattr(self, switch):
                return SWITCHES[switch]
        if random.random() < self.batch_failures:
            return random.choice(BATCH_FAULTS)
        return "drop_mid_stream" if streaming and random.random() < self.drop_mid_stream_rate else None

    def first_byte(self, prompt_tokens: int) -> float:
        """Give the seconds until the first byte of an answer to so many tokens that are in no cache."""
        reading = prompt_tokens / self.prompt_tokens_per_second if self.prompt_tokens_per_second else 0.0
        return max(0.0, self.latency + random.uniform(-self.jitter, self.jitter)) + reading

    def lasts(self, seconds: float) -> float:
        """Give how long it really takes until a batch or a prompt cache is so many seconds older."""
        return seconds / max(self.time_scale, SLOWEST)


RATED = [field.name.removesuffix("_rate") for field in dataclasses.fields(Behaviour) if field.name.endswith("_rate")]


def changed(record: Record, changes: Mapping[str, Any]) -> Record:
    """Return a record of numbers and switches with some fields replaced.

    Raises:
        InvalidChange: naming a field that there is not, or a value that it cannot have.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(record)}
    for name, value in changes.items():
        if name not in defaults:
            raise InvalidChange(f"{name}: no such field; there are {', '.join(defaults)}")
        # bool is an int to Python, but `true` requests per minute is a mistake.
        switch = isinstance(value, bool)
        number = not switch and isinstance(value, int | float) and 0 <= value < math.inf
        if not (switch if isinstance(defaults[name], bool) else number or value is defaults[name] is None):
            raise InvalidChange(f"{name}: {value!r} is no value for it")
    return dataclasses.replace(record, **changes)

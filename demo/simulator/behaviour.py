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


class InvalidChange(ValueError):
    """A change names a field that does not exist, or gives it a value that it cannot have."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How the simulated API answers. Rates are fractions of all calls, 0 to 1; together they are at most 1.

    Attributes:
        latency: seconds until the first byte of an answer (of a whole answer, when not streaming), mean.
        jitter: seconds by which a latency may differ from its mean, either way, uniformly.
        tokens_per_second: pace of each stream; 0 sends all tokens at once.
        output_tokens: tokens of an answer; never more than the call's max_tokens.
        headers: send anthropic-ratelimit-* and retry-after; False is a gateway that strips them (hidden limits).
        outage: every call gets 529.
        spend_limit: every call gets the 429 of an enforced spend limit, without retry-after.
        model_forbidden: every call gets the 403 of a model that its key may not call.
        server_error_rate: rate of 500 api_error.
        overloaded_rate: rate of 529 overloaded_error.
        drop_mid_stream_rate: rate of streams whose connection closes in the middle.
    """

    latency: float = 0.0
    jitter: float = 0.0
    tokens_per_second: float = 0.0
    output_tokens: int = 16  # enough for a stream to have a middle, few enough for a test to be quick
    headers: bool = True
    outage: bool = False
    spend_limit: bool = False
    model_forbidden: bool = False
    server_error_rate: float = 0.0
    overloaded_rate: float = 0.0
    drop_mid_stream_rate: float = 0.0

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

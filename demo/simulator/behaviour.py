"""Behaviour: how the simulated API answers, apart from its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from demo.simulator.faults import BY_RATE, MID_STREAM, Fault

if TYPE_CHECKING:
    from random import Random

# A short chat answer: enough tokens for a stream to have a middle, few enough for a test to be quick.
OUTPUT_TOKENS = 16
# Well below any read timeout in use, so that a dripping answer outlives each of them.
DRIP_INTERVAL_S = 0.05
# The rate of each fault, in the order of BY_RATE.
RATE_FIELDS = tuple(f"{fault}_rate" for fault in BY_RATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How the simulated API answers. Rates are fractions of all calls, 0 to 1; together they are at most 1.

    Attributes:
        latency: seconds until the first byte of an answer (of a whole answer, when not streaming), mean.
        jitter: seconds by which a latency may differ from its mean, either way, uniformly.
        tokens_per_second: pace of each stream; 0 sends all tokens at once.
        output_tokens: tokens of an answer, mean; never more than the call's max_tokens.
        output_spread: fraction of output_tokens by which an answer may differ, either way, uniformly.
        drip_interval: seconds between the bytes of a dripping answer.
        headers: send anthropic-ratelimit-* and retry-after; False is a gateway that strips them (hidden limits).
        outage: every call gets 529.
        spend_limit: every call gets the 429 of an enforced spend limit, without retry-after.
        model_forbidden: every call gets the 403 of a model that its key may not call.
        seed: seed of all random draws; None draws a new one.
        server_error_rate: rate of 500 api_error.
        overloaded_rate: rate of 529 overloaded_error.
        unavailable_rate: rate of 503 with an HTML body.
        drop_rate: rate of connections closed without an answer.
        hang_rate: rate of calls that are never answered.
        drip_rate: rate of answers sent byte by byte.
        html_rate: rate of 200 with an HTML body.
        broken_json_rate: rate of 200 with JSON cut in half.
        drop_mid_stream_rate: rate of streams whose connection closes in the middle.
        stream_overloaded_rate: rate of streams with an overloaded_error event in the middle.
        truncated_rate: rate of streams that end without message_stop.
    """

    latency: float = 0.0
    jitter: float = 0.0
    tokens_per_second: float = 0.0
    output_tokens: int = OUTPUT_TOKENS
    output_spread: float = 0.0
    drip_interval: float = DRIP_INTERVAL_S
    headers: bool = True
    outage: bool = False
    spend_limit: bool = False
    model_forbidden: bool = False
    seed: int | None = None
    server_error_rate: float = 0.0
    overloaded_rate: float = 0.0
    unavailable_rate: float = 0.0
    drop_rate: float = 0.0
    hang_rate: float = 0.0
    drip_rate: float = 0.0
    html_rate: float = 0.0
    broken_json_rate: float = 0.0
    drop_mid_stream_rate: float = 0.0
    stream_overloaded_rate: float = 0.0
    truncated_rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that no API could have, all of them together.

        Raises:
            ValueError: naming each field that is out of its range.
        """
        fractions = {"output_spread", *RATE_FIELDS}
        amounts = {"latency", "jitter", "tokens_per_second", "drip_interval"}
        problems = [f"{name}: must be 0 to 1" for name in sorted(fractions) if not 0 <= getattr(self, name) <= 1]
        problems += [f"{name}: must not be negative" for name in sorted(amounts) if not getattr(self, name) >= 0]
        if self.output_tokens < 1:
            problems.append("output_tokens: must be at least 1")
        if sum(self.rates()) > 1:
            problems.append("the rates of all faults together: must be at most 1")
        if problems:
            raise ValueError("; ".join(problems))

    def rates(self) -> tuple[float, ...]:
        """Give the rate of each fault, in the order of BY_RATE."""
        return tuple(getattr(self, name) for name in RATE_FIELDS)

    def draw_fault(self, random: Random, *, streaming: bool) -> Fault | None:
        """Draw what goes wrong with a call; mid-stream faults befall only streams."""
        point = random.random()
        for fault, rate in zip(BY_RATE, self.rates(), strict=True):
            if point < rate:
                return fault if streaming or fault not in MID_STREAM else None
            point -= rate
        return None

    def draw_latency(self, random: Random) -> float:
        """Draw the seconds until the first byte."""
        return max(0.0, self.latency + random.uniform(-self.jitter, self.jitter))

    def draw_output_tokens(self, random: Random) -> int:
        """Draw how many tokens the answer would like to have, before max_tokens."""
        spread = self.output_tokens * self.output_spread
        return max(1, round(self.output_tokens + random.uniform(-spread, spread)))

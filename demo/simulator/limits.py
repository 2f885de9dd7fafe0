"""Limits: what one API key may use of one family of models."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

# The pattern of the models that no other pattern names.
ANY_MODEL = "*"
# `60 RPM may be enforced as 1 request per second` (platform.claude.com, rate limits).
BURST_S = 1.0
# Long enough that a prompt of a quarter of the limit is admitted at all.
TOKEN_BURST_S = 15.0

# Model pattern (fnmatch) -> its limits.
LimitTable: TypeAlias = "Mapping[str, Limits]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one API key may use of one family of models. None is no limit.

    Attributes:
        rpm: requests per minute.
        itpm: input tokens per minute; cache creation counts, cache reads do not.
        otpm: output tokens per minute, as produced; max_tokens does not count.
        in_flight: calls at the same time.
        burst: seconds of requests that can be saved up; at least 1 request always can.
        token_burst: seconds of tokens that can be saved up.
    """

    rpm: float | None = None
    itpm: float | None = None
    otpm: float | None = None
    in_flight: int | None = None
    burst: float = BURST_S
    token_burst: float = TOKEN_BURST_S

    def __post_init__(self) -> None:
        """Refuse limits under which no call could ever pass.

        Raises:
            ValueError: naming each field that is out of its range.
        """
        limits = {"rpm": self.rpm, "itpm": self.itpm, "otpm": self.otpm, "in_flight": self.in_flight}
        problems = [f"{name}: must be above 0" for name, value in limits.items() if value is not None and not value > 0]
        problems += [
            f"{name}: must not be negative" for name in ("burst", "token_burst") if not getattr(self, name) >= 0
        ]
        if problems:
            raise ValueError("; ".join(problems))


def pattern_of(model: str, table: LimitTable) -> str:
    """Give the first pattern, in the table's order, that fits a model; ANY_MODEL comes last wherever it stands."""
    fitting = (pattern for pattern in table if pattern != ANY_MODEL and fnmatchcase(model, pattern))
    return next(fitting, ANY_MODEL)

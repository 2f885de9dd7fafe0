"""What a budget may give, and what calls may cost, kept apart from the scripts."""

from collections import Counter

from celery_app.lanes import CRITICAL
from scheduler_model.snapshot import Placed

#: What the design says of the bucket of requests: the part of the limit that is used, and the most that it holds.
_HEADROOM, _BURST = 0.98, 1.0

#: Numbers in the scripts and here do not round alike.
_ROUNDING = 1e-3


class Meter:
    """A bucket of requests: in any time it gives rate x time + burst at most, and what was given back."""

    def __init__(self, rpm: int) -> None:
        self._rate = rpm / 60 * _HEADROOM
        self._most = max(1.0, self._rate * _BURST)
        self._level, self._at = self._most, 0.0

    def grant(self, now: float) -> None:
        """One call was let go."""
        self._refill(now)
        assert self._level >= 1 - _ROUNDING, f"the budget gave more than it has: {self._level}"
        self._level -= 1

    def give_back(self, now: float) -> None:
        """One call was not made."""
        self._refill(now)
        self._level = min(self._most, self._level + 1)

    def _refill(self, now: float) -> None:
        self._level, self._at = min(self._most, self._level + (now - self._at) * self._rate), now


class Purse:
    """What the calls have cost, and what they may.

    Attributes:
        caps: name -> units of money.
    """

    def __init__(self) -> None:
        self.caps: dict[str, int] = {}
        self._spent: Counter[str] = Counter()
        self._open: dict[str, tuple[list[str], int]] = {}

    def grant(self, job: Placed, ticket: str) -> None:
        """The call of a job was let go."""
        names = ["all|", f"lane|{job.lane}", f"tenant|{job.tenant}", f"batch|{job.batch}"]
        for name in names:
            covers = job.lane != CRITICAL.name or name.startswith(("lane|", "batch|"))
            if covers and name in self.caps:
                assert self._spent[name] + job.usd <= self.caps[name], f"{name} has cost more than it may"
        self._spent.update(dict.fromkeys(names, job.usd))
        self._open[ticket] = names, job.usd

    def give_back(self, ticket: str) -> None:
        """It has cost nothing."""
        names, usd = self._open.pop(ticket)
        self._spent.subtract(dict.fromkeys(names, usd))

"""What a channel asks the scheduler for when it has a free slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_app.broker.rules import LANE_NAMES
from celery_app.scheduler.scripts import CLAIM

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds that an idle worker blocks on its wakeups at most: what a stock producer puts into a lane sends none.
WAKEUP_WAIT = 0.25

#: How the script hands out a queue's messages: not at all, for good, or under a lease.
_NOT, _FOR_GOOD, _LEASED = "0", "1", "2"


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """One claim.

    Attributes:
        token: of this claim alone.
        most: jobs that it asks for.
        held: queues whose jobs it holds under a lease; by the time of its reply nobody may consume from them any more.
        arguments: of ``scheduler/scripts/claim.lua``.
    """

    token: str
    most: int
    held: frozenset[str]
    arguments: tuple[Any, ...]

    @classmethod
    def of(cls, channel: Any, queues: Sequence[str], most: int, token: str) -> ClaimRequest:
        """Return a channel's request for jobs of some queues."""
        held = frozenset(queues) - channel.unheld
        times = round(channel.leases.reap_after() * 1000), round(WAKEUP_WAIT * 1000)
        options = (token, most, *times, int(channel.leases.has_suspect), channel.sep, channel.steps)
        own = [queue for queue in queues if not channel.is_lane(queue)]
        flags = [part for queue in own for part in (queue, _LEASED if queue in held else _FOR_GOOD)]
        lanes = [
            part
            for lane in map(channel.lane, LANE_NAMES)
            if lane is not None
            for part in (
                *lane.arguments,
                (_LEASED if lane.name in held else _FOR_GOOD) if lane.name in queues else _NOT,
            )
        ]
        return cls(token, most, held, (channel.global_keyprefix, *options, len(own), *flags, *lanes))

    def command(self, *, script_is_known: bool) -> list[Any]:
        """Return it as a command of Redis'."""
        head = ["EVALSHA", CLAIM.sha] if script_is_known else ["EVAL", CLAIM.source]
        return [*head, 0, *self.arguments]

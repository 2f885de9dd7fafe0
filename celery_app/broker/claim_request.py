"""What a channel asks the scheduler for when it has a free slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_app.broker.rules import LANE_NAMES
from celery_app.scheduler.scripts import CLAIM

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from celery_app.lanes import Lane

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
        arguments = claim_arguments(
            channel.global_keyprefix,
            token,
            most,
            [lane for lane in map(channel.lane, LANE_NAMES) if lane is not None],
            queues,
            reap_after=channel.leases.reap_after(),
            sleep=WAKEUP_WAIT,
            lists=(channel.sep, channel.steps),
            has_suspect=channel.leases.has_suspect,
            unheld=channel.unheld,
        )
        return cls(token, most, held, arguments)

    def command(self, *, script_is_known: bool) -> list[Any]:
        """Return it as a command of Redis'."""
        head = ["EVALSHA", CLAIM.sha] if script_is_known else ["EVAL", CLAIM.source]
        return [*head, 0, *self.arguments]


def claim_arguments(
    prefix: str,
    token: str,
    most: int,
    lanes: Collection[Lane],
    queues: Collection[str],
    *,
    reap_after: float,
    sleep: float,
    lists: tuple[str, str],
    has_suspect: bool = False,
    unheld: Collection[str] = (),
) -> tuple[Any, ...]:
    """Return the arguments of ``scheduler/scripts/claim.lua``.

    Args:
        prefix: of all keys.
        token: of the claim.
        most: jobs that are wanted.
        lanes: all, with their rules.
        queues: that the worker serves: lanes, and queues of a project's own.
        reap_after: seconds without a sign of life after which others' leases are over; 0: leave them alone.
        sleep: seconds that the worker sleeps at most.
        lists: what stands between a queue's name and a priority step in a list's name, and the steps.
        has_suspect: whether the process holds one.
        unheld: queues whose jobs are gone once claimed.
    """
    flags = {queue: _FOR_GOOD if queue in unheld else _LEASED for queue in queues}
    names = {lane.name for lane in lanes}
    own = [part for queue in queues if queue not in names for part in (queue, flags[queue])]
    rules = [part for lane in lanes for part in (*lane.arguments, flags.get(lane.name, _NOT))]
    options = (round(reap_after * 1000), round(sleep * 1000), int(has_suspect), *lists, len(own) // 2)
    return (prefix, token, most, *options, *own, *rules)

"""The tenants with the most jobs waiting, as ``scheduler/scripts/tenants.lua`` counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Waiting(NamedTuple):
    """The jobs of a tenant that are queued in a lane.

    Attributes:
        lane: its name.
        tenant: as the producer names it; empty: jobs without one.
        jobs: how many.
    """

    lane: str
    tenant: str
    jobs: int


class Crowd(NamedTuple):
    """Who waits.

    Attributes:
        most: those with the most jobs waiting, at most ten of each lane, the most jobs first.
        left_out: tenants that were not looked at, at least: of many only some are, others the next time.
    """

    most: list[Waiting]
    left_out: int

    @classmethod
    def of(cls, lanes: Iterable[str], reply: Any) -> Crowd:
        """Read the script's reply about these lanes."""
        rows = list(zip(lanes, reply, strict=True))
        most = [
            Waiting(lane, tenant.decode(errors="replace"), jobs)
            for lane, (_, *pairs) in rows
            for tenant, jobs in zip(pairs[::2], pairs[1::2], strict=True)
        ]
        return cls(sorted(most, key=lambda each: -each.jobs), sum(left for _, (left, *_) in rows))


def tenants_arguments(prefix: str, lanes: Sequence[str], known: Iterable[str]) -> list[Any]:
    """Return ARGV of the script; known: tenants that had the most the last time."""
    return [prefix, len(lanes), *lanes, *known]

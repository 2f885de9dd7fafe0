"""Where every job is, read from Redis at one moment."""

from __future__ import annotations

from typing import Any, NamedTuple

from redis import Redis

from celery_app.lanes import LANES

# Unpacks the records as lib/jobs.lua packs them; the places it reads by itself, so that no library can hide a fault.
_READ = """
local found = {}
local jobs = redis.call('HGETALL', 'lanes:jobs')
for i = 1, #jobs, 2 do
  local id, facts = jobs[i], cmsgpack.unpack(jobs[i + 1])
  local lane, step, number, model, tenant = facts[1], facts[2], facts[3], facts[4], facts[5]
  local batch, usd, parked = facts[8], facts[34] or 0, facts[36] == 1
  local line = parked and 'lanes:parked:' .. lane .. ':' .. batch
    or 'lanes:line:' .. lane .. ':' .. #model .. ':' .. model .. ':' .. tenant
  local place = redis.call('ZSCORE', line, id)
  local indexed = parked and redis.call('SISMEMBER', 'lanes:parked:' .. lane, batch) == 1
    or not parked and redis.call('ZSCORE', 'lanes:tenants:' .. lane .. ':' .. model, tenant)
    and redis.call('SISMEMBER', 'lanes:models:' .. lane, model) == 1
  local leased = redis.call('ZSCORE', 'lanes:leases', id)
  found[#found + 1] = {id, lane, facts[26], facts[30], facts[31], tostring(facts[10]), facts[23],
    place and (indexed and 'line' or 'hidden') or '', redis.call('ZSCORE', 'lanes:scheduled', id) and 'scheduled' or '',
    leased and 'leases' or '', redis.call('ZSCORE', 'lanes:ended', id) and 'ended' or '',
    redis.call('ZSCORE', 'lanes:dead', id) and 'dead' or '', redis.call('ZSCORE', 'lanes:deadlines', id) and 1 or 0,
    place and tonumber(place) == step * 1e13 + number and 1 or 0, leased or '',
    redis.call('HEXISTS', 'lanes:texts', id), tenant, batch, usd}
end
local sizes = {}
for _, name in ipairs({'texts', 'leases', 'scheduled', 'ended', 'dead', 'deadlines'}) do
  local type = redis.call('TYPE', 'lanes:' .. name).ok
  sizes[#sizes + 1] = type == 'zset' and redis.call('ZCARD', 'lanes:' .. name) or type == 'hash'
    and redis.call('HLEN', 'lanes:' .. name) or 0
end
return {found, redis.call('HGETALL', 'lanes:counts'), sizes}
"""

#: A dead letter of which those who wait have yet to be told is in both.
_FINE = ({"line"}, {"scheduled"}, {"leases"}, {"ended"}, {"dead"}, {"ended", "dead"})


class Placed(NamedTuple):
    """One job.

    Attributes:
        claim: the token that it is held under; empty: nobody holds it.
        places: the names of all places that it was found in.
        last_sign: of the worker that holds it, ms since the epoch; 0: nobody does.
        usd: what it says that it costs.
    """

    id: str
    lane: str
    claim: str
    ending: str
    reason: str
    has_deadline: bool
    unique: str
    places: frozenset[str]
    watched: bool
    stands_right: bool
    last_sign: int
    has_text: bool
    tenant: str
    batch: str
    usd: int


class Snapshot(NamedTuple):
    """All jobs, by id; what the lanes' counters say; and how many entries each place has."""

    jobs: dict[str, Placed]
    counts: dict[str, int]
    sizes: dict[str, int]

    @classmethod
    def of(cls, client: Redis) -> Snapshot:
        """Read it."""
        rows, counts, sizes = client.eval(_READ, 0)  # type: ignore[no-untyped-call]
        placed = {job.id: job for job in map(_placed, rows)}
        numbers = {counts[i].decode(): int(counts[i + 1]) for i in range(0, len(counts), 2)}
        return cls(
            placed,
            numbers,
            dict(zip(("texts", "leases", "scheduled", "ended", "dead", "deadlines"), sizes, strict=True)),
        )

    def check(self) -> None:
        """Whatever has happened: each job is in exactly one place, and all that is counted or indexed is so."""
        for job in self.jobs.values():
            assert job.places in _FINE, f"{job.id} is in {sorted(job.places) or 'no place'}"
            assert bool(job.claim) == ("leases" in job.places), f"{job.id}: claim {job.claim!r}, {sorted(job.places)}"
            assert job.has_text, f"{job.id} has no text"
            assert job.watched == (job.has_deadline and "line" in job.places), f"{job.id}: its deadline"
            assert job.stands_right == ("line" in job.places), f"{job.id}: its place in line"
            assert not (job.places & {"line", "scheduled", "leases"} and job.ending), (
                f"{job.id}: has ended, and goes on"
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        """No counter is off, and no place has an entry without a job."""
        jobs = self.jobs.values()
        for lane in LANES:
            for name, place in (("queued", "line"), ("scheduled", "scheduled"), ("held", "leases")):
                real = sum(job.lane == lane.name and place in job.places for job in jobs)
                counted = self.counts.get(f"{lane.name}:{name}", 0)
                assert counted == real, f"{lane.name} has {real} {name}, and says {counted}"
        for place in ("leases", "scheduled", "ended", "dead"):
            assert self.sizes[place] == sum(place in job.places for job in jobs), f"an entry of {place} has no job"
        assert self.sizes["texts"] == len(self.jobs), "a text has no job"
        assert self.sizes["deadlines"] == sum(job.watched for job in jobs), "a deadline has no job"


def _placed(row: list[Any]) -> Placed:
    *row, tenant, batch, usd = row
    id_, lane, claim, ending, reason, deadline, unique, *places, watched, right, last, has_text = row
    words = [word.decode() for word in (id_, lane, claim, ending, reason)]
    return Placed(
        *words,
        deadline not in {b"0", 0},
        unique.decode(),
        frozenset(place.decode() for place in places if place),
        bool(watched),
        bool(right),
        int(last or 0),
        bool(has_text),
        tenant.decode(),
        batch.decode(),
        int(usd),
    )

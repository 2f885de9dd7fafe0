"""The shipments of one lane in Redis, as the worker sees them that ships its jobs: the lane's steersman."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_app.keys import CARGO, MAY_SHIP, MAY_SHIP_MODELS, SHIPMENT, SHIPMENTS, STEERS_KEPT, TEXT, TEXTS
from celery_app.lanes import LANES
from celery_app.scheduler.scripts import LAND, SHIP, STEER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from redis import Redis

    from celery_app.lanes import Lane

#: Jobs that one script moves at most: 50 take the server a millisecond or two.
PIECE = 50

#: What the API takes in one batch (platform.claude.com, batch processing): requests, and bytes in all.
MOST_JOBS, MOST_BYTES = 100_000, 256_000_000

#: Milliseconds that a job which is shipped can wait at least; scripts/lib/shipments.lua.
WAITS_FOR_MS = 3_600_000

#: Jobs that a cap keeps back are behind this in what may be shipped, by when they were looked at
#: (scheduler/scripts/lib/shipments.lua), and are looked at again after so many ms.
_BEHIND, _KEPT_BACK_MS = 2**52, 30_000

_MS_PER_S = 1000


class HelmLost(Exception):
    """Another worker ships the lane's jobs by now, or the shipment is over."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """Jobs that go to the API as one batch of its own.

    Attributes:
        id: begins the ids of its requests.
        model: that all of its jobs call.
        begun_ms: when it began, since the epoch.
        pieces: that were taken into it.
        jobs: that it had at first.
        deadline_ms: the first of its jobs' deadlines; 0: they have none.
        sending_ms: when its batch was about to be created; 0: not yet.
        requests: that the batch has.
        batch: the API's id of the batch; empty: not known.
        cancelled_ms: when the API was asked to cancel it; 0: it was not.
        lost_ms: since when nobody knows whether it was created; 0: it is known.
        is_adopted: whether it was found at the API: it may be another program's, as large by chance.
    """

    id: str
    model: str
    begun_ms: int
    pieces: int = 0
    jobs: int = 0
    deadline_ms: int = 0
    sending_ms: int = 0
    requests: int = 0
    batch: str = ""
    cancelled_ms: int = 0
    lost_ms: int = 0
    is_adopted: bool = False

    @classmethod
    def of(cls, shipment: str, fields: dict[bytes, bytes]) -> Shipment:
        """Read one from its hash."""
        said = {name.decode(): value.decode() for name, value in fields.items()}

        def number(name: str) -> int:
            return int(float(said.get(name) or 0))

        return cls(
            id=shipment,
            model=said.get("model", ""),
            begun_ms=number("begun"),
            pieces=number("pieces"),
            jobs=number("jobs"),
            deadline_ms=number("deadline"),
            sending_ms=number("sending"),
            requests=number("requests"),
            batch=said.get("batch", ""),
            cancelled_ms=number("cancelled"),
            lost_ms=number("lost"),
            is_adopted=bool(number("adopted")),
        )

    def promoted_at_ms(self, lane: Lane) -> float:
        """Return when what is not answered goes live."""
        late = self.begun_ms + lane.promote_after * _MS_PER_S
        return min(late, self.deadline_ms - lane.promote_before * _MS_PER_S) if self.deadline_ms else late


class Landed(NamedTuple):
    """What has become of a shipment's jobs: with answers, undone, left; and the answers that wait for their jobs."""

    answered: int
    undone: int
    left: int
    waiting: int


class Shipments:
    """The shipments of one lane.

    Every method but `steer` raises `HelmLost` where another worker is the steersman by now, and then has done nothing.
    """

    def __init__(self, client: Redis, prefix: str, lane: Lane, part_of: Callable[[str], float] = lambda _: 1.0) -> None:
        """Ship nothing yet.

        Args:
            client: puts no prefix before the keys.
            prefix: of all keys.
            lane: whose jobs are shipped.
            part_of: model -> the part of its price that a call costs in a batch.
        """
        self.lane, self._part_of = lane, part_of
        self._client, self._prefix, self._token = client, prefix, uuid.uuid4().hex

    def steer(self, client: Redis | None = None) -> bool:
        """Become the lane's steersman, or stay so for a while; return whether that is so.

        Args:
            client: for a thread that must not wait; None: this one's.
        """
        return bool(STEER.run(client or self._client, (), (*self._helm, STEERS_KEPT * _MS_PER_S, "")))

    def leave(self) -> None:
        """Have another worker be it at once."""
        STEER.run(self._client, (), (*self._helm, 0, ""))

    @property
    def _helm(self) -> tuple[str, str, str]:
        return self._prefix, self.lane.name, self._token

    def now_ms(self) -> int:
        """Return the server's time."""
        seconds, micros = self._client.time()
        return int(seconds * _MS_PER_S + micros // _MS_PER_S)

    def waiting(self) -> dict[str, int]:
        """Return the models of which jobs may be shipped, and how many.

        Those that a cap has kept back count again after a while.
        """
        until = _BEHIND + self.now_ms() - _KEPT_BACK_MS
        models: Any = self._client.smembers(MAY_SHIP_MODELS.of(self._prefix, self.lane.name))
        names = sorted(model.decode() for model in models)
        return {
            name: int(self._client.zcount(MAY_SHIP.of(self._prefix, self.lane.name, name), 0, until)) for name in names
        }

    def batches(self) -> set[str]:
        """Return the API's batches that are known, of all lanes."""
        return {shipment.batch for lane in LANES for shipment in self.all(lane.name)}

    def all(self, lane: str = "") -> list[Shipment]:
        """Return the shipments that are under way, of this lane or another one, the first one first."""
        ids: Any = self._client.zrange(SHIPMENTS.of(self._prefix, lane or self.lane.name), 0, -1)
        with self._client.pipeline(transaction=False) as pipe:
            for each in ids:
                pipe.hgetall(SHIPMENT.of(self._prefix, each.decode()))
            return [Shipment.of(own.decode(), found) for own, found in zip(ids, pipe.execute(), strict=True)]

    def begin(self, model: str) -> None:
        """Begin a shipment of a model's jobs, with nothing in it."""
        self._note(uuid.uuid4().hex[:20], "begun", "", "model", model)

    def note(self, shipment: Shipment, **fields: str | int) -> None:
        """Write down what has become of a shipment."""
        self._note(shipment.id, *(part for field in fields.items() for part in field))

    def _note(self, shipment: str, *fields: str | int) -> None:
        if not STEER.run(self._client, (), (*self._helm, STEERS_KEPT * _MS_PER_S, shipment, *fields)):
            raise HelmLost

    def load(self, shipment: Shipment, piece: int) -> tuple[int, bool]:
        """Take a piece of the waiting jobs into a shipment; return how many it has, and whether there may be more."""
        least = max(WAITS_FOR_MS, round(self.lane.promote_before * _MS_PER_S))
        bounds = (piece, PIECE, MOST_JOBS, MOST_BYTES, least)
        money = ([lane.name for lane in LANES].index(self.lane.name) + 1, self._part_of(shipment.model))
        answer = SHIP.run(self._client, (), (*self._helm, shipment.id, shipment.model, *bounds, *money))
        if not answer:
            raise HelmLost
        return answer[0], bool(answer[1])

    def cargo(self, shipment: Shipment, after: int = 0) -> list[tuple[int, str]]:
        """Return the numbers and ids of jobs that are in a shipment, a piece of those with numbers above `after`."""
        key = CARGO.of(self._prefix, shipment.id)
        rows: Any = self._client.zrangebyscore(key, f"({after}", "+inf", start=0, num=PIECE, withscores=True)
        return [(int(number), own.decode()) for own, number in rows]

    def texts(self, ids: Sequence[str]) -> list[bytes | None]:
        """Return the messages of jobs."""
        found: Any = self._client.hmget(TEXTS.of(self._prefix), list(ids))
        return [
            text if text is not None else self._client.get(TEXT.of(self._prefix, own))  # type: ignore[misc]
            for own, text in zip(ids, found, strict=True)
        ]

    def land(self, shipment: Shipment, jobs: Iterable[tuple[int, str]] = (), *, over: bool = False) -> Landed:
        """Have jobs of a shipment leave it.

        Args:
            shipment: whose jobs.
            jobs: their numbers, each with its answer as JSON; empty: undone.
            over: whether nothing more will come of it: once no job is left it is deleted.
        """
        parts = [part for job in jobs for part in job]
        answer = LAND.run(self._client, (), (*self._helm, shipment.id, int(over), *parts))
        if not answer:
            raise HelmLost
        return Landed(*answer)

    def land_undone(self, shipment: Shipment) -> int:
        """Have all jobs of a shipment go live, and delete it; return how many did."""
        undone = 0
        while True:
            landed = self.land(shipment, [(number, "") for number, _ in self.cargo(shipment)], over=True)
            undone += landed.undone
            if not landed.left:
                return undone

"""One shipment's way: loaded, sent, looked after, brought in. Each step may be another worker's."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from celery_app.broker.shipments import HelmLost
from celery_app.process.away import say_away
from tasks.failures import failure_of
from tasks.loop import HungUp, OutOfTime
from tasks.shipping.answers import answer_in
from tasks.shipping.requests import number_of, requests_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_app.broker.shipments import Landed, Shipment, Shipments
    from tasks.shipping.batches import Batch, MessageBatches

logger = logging.getLogger(__name__)

#: Milliseconds for which a batch is looked for that was being created when nobody heard of it any more.
APPEARS_WITHIN_MS = 15_000

#: Milliseconds by which the API's clock may differ from Redis'.
CLOCKS_DIFFER_MS = 120_000

#: Answers that wait in Redis for their jobs at most; further ones stay at the API.
MOST_WAITING = 500

#: Seconds for which those are waited for before others are looked after; and those between two looks.
WAITS, LOOK_EVERY = 5.0, 0.1

#: A batch is looked at again after this part of its age, within these bounds, in seconds.
_PART, _SOONEST, _LATEST = 0.1, 1.0, 300.0

#: Seconds until the API is asked once more that could not be.
_AWAY = 10.0

#: The API's status for a batch that it does not know.
_GONE = 404

_CUT_SHORT = "its results were cut short"

_MS_PER_S = 1000


class Voyage:
    """Takes shipments of one lane a step on."""

    def __init__(self, shipments: Shipments, batches: MessageBatches, stops: Callable[[], bool]) -> None:
        """Take the lane's shipments, the API, and whether this worker is about to stop."""
        self._shipments, self._batches, self._stops = shipments, batches, stops
        self._lane = shipments.lane

    def step(self, shipment: Shipment) -> float:
        """Take a shipment as far as it goes now; return the seconds until it is to be looked at again.

        Raises:
            HelmLost: another worker ships the lane's jobs.
            redis.exceptions.RedisError: if Redis is away.
        """
        try:
            if shipment.batch:
                return self._look(shipment)
            if shipment.sending_ms:
                return self._find(shipment)
            return self._send(shipment)
        except (HungUp, OutOfTime, LookupError, TypeError, ValueError) as exc:
            return self._say_away(shipment, exc)
        except Exception as exc:
            failure = failure_of(exc, 0.0)
            if failure is None:
                raise
            return self._say_away(shipment, failure.error, failure.retry_after or 0.0)

    def unforeseen(self, shipment: Shipment) -> float:
        """Leave a shipment alone for a while whose step has failed in a way that nobody knows; as `step`."""
        if (self._is_late(shipment) and not (shipment.batch or shipment.sending_ms)) or self._is_given_up(shipment):
            return self._give_up(shipment)
        return _AWAY

    def _say_away(self, shipment: Shipment, exc: Exception, pause: float = 0.0) -> float:
        if self._is_given_up(shipment) or (not shipment.batch and self._is_late(shipment)):
            return self._give_up(shipment)
        say_away(f"{self._lane.name}: the API's batches cannot be asked for", exc)
        return self._until_promoted(shipment, max(_AWAY if pause or shipment.batch else _SOONEST, pause))

    def _send(self, shipment: Shipment) -> float:
        """Load what waits, note that a batch is about to be created, and create it."""
        if self._is_late(shipment) or not self._lane.message_batches:
            self._shipments.land_undone(shipment)
            return 0.0
        piece, more = shipment.pieces, True
        while more:
            if self._stops():
                return LOOK_EVERY
            piece += 1
            _, more = self._shipments.load(shipment, piece)
        with requests_of(self._shipments, shipment) as (body, requests):
            if not requests or self._is_late(shipment):
                self._shipments.land_undone(shipment)
                return 0.0
            self._shipments.note(shipment, sending=self._shipments.now_ms(), requests=requests)
            try:
                created = self._batches.create(body)
            except Exception as exc:  # noqa: BLE001 - what is no failure of the call is raised again
                return self._refused(shipment, exc)
        self._note_batch(shipment, created)
        logger.info("%s: %d jobs of %s shipped as %s", self._lane.name, requests, shipment.model, created.id)
        return _SOONEST

    def _note_batch(self, shipment: Shipment, created: Batch) -> None:
        try:
            self._shipments.note(shipment, batch=created.id)
        except HelmLost:
            if not self._is_adopted(shipment, created):
                self._batches.cancel(created.id)
            raise

    def _is_adopted(self, shipment: Shipment, created: Batch) -> bool:
        """Whether whoever has the helm by now goes on with this batch, and not with one of its own."""
        until = time.monotonic() + 2 * APPEARS_WITHIN_MS / _MS_PER_S
        while time.monotonic() < until:
            known = next((each for each in self._shipments.all() if each.id == shipment.id), None)
            if known is None or known.batch:
                return known is not None and known.batch == created.id
            time.sleep(LOOK_EVERY)
        return False

    def _refused(self, shipment: Shipment, exc: Exception) -> float:
        """Judge why a batch was not created; where nobody knows whether it was, it is looked for."""
        failure = failure_of(exc, 0.0)
        if failure is None:
            raise exc
        if failure.account or failure.kind == "limited":
            self._shipments.note(shipment, sending=0)
        elif failure.kind == "fatal":
            undone = self._shipments.land_undone(shipment)
            words = "%s: the API takes no batch of %s, %d jobs go live: %s"
            logger.warning(words, self._lane.name, shipment.model, undone, failure.error)
            return 0.0
        else:
            self._shipments.note(shipment, lost=self._shipments.now_ms())
        return self._say_away(shipment, failure.error, failure.retry_after or 0.0)

    def _find(self, shipment: Shipment) -> float:
        """Adopt the batch of a shipment that was being created, if there is one; else create it once more."""
        since = (shipment.sending_ms - CLOCKS_DIFFER_MS) / _MS_PER_S
        known = self._shipments.batches()
        found = [
            each
            for each in self._batches.since(since)
            if each.requests == shipment.requests and each.id not in known and self._is_ours(shipment, each)
        ]
        if found:
            self._shipments.note(shipment, batch=found[0].id, adopted=1)
            logger.info("%s: %s adopted, %d requests", self._lane.name, found[0].id, found[0].requests)
            return 0.0
        now = self._shipments.now_ms()
        if not shipment.lost_ms:
            self._shipments.note(shipment, lost=now)  # its steersman was killed meanwhile
        if now - (shipment.lost_ms or now) < APPEARS_WITHIN_MS:
            return _SOONEST
        self._shipments.note(shipment, sending=0, lost=0)
        return 0.0

    def _is_ours(self, shipment: Shipment, batch: Batch) -> bool:
        """Whether a batch is a shipment's, by the ids of its requests; those of one that goes on nobody can see."""
        if not batch.ended:
            return True
        return any(
            number_of(shipment, row.get("custom_id")) is not None
            for rows in self._batches.results(batch.id)
            for row in rows
        )

    def _look(self, shipment: Shipment) -> float:
        """Ask how a batch is; bring it in if it has ended, and cancel it where that takes too long."""
        try:
            batch = self._batches.retrieve(shipment.batch)
        except Exception as exc:
            if getattr(exc, "status_code", 0) == _GONE:
                return self._give_up(shipment)
            raise
        if batch.ended:
            return self._bring_in(shipment)
        if self._is_given_up(shipment):
            return self._give_up(shipment)
        is_empty = not self._shipments.land(shipment).left
        if shipment.is_adopted and (is_empty or self._is_late(shipment)):
            return self._give_up(shipment)
        if not shipment.cancelled_ms and (is_empty or self._is_late(shipment)):
            self._batches.cancel(shipment.batch)
            self._shipments.note(shipment, cancelled=self._shipments.now_ms())
            logger.info("%s: %s cancelled: its jobs go live", self._lane.name, shipment.batch)
            return _SOONEST
        if is_empty:
            self._shipments.land(shipment, over=True)
            return 0.0
        age = (self._shipments.now_ms() - (shipment.cancelled_ms or shipment.begun_ms)) / _MS_PER_S
        return self._until_promoted(shipment, min(max(_SOONEST, age * _PART), _LATEST))

    def _bring_in(self, shipment: Shipment) -> float:
        """Read the results of a batch that has ended; what it has not done goes live."""
        read, ours = 0, 0
        for rows in self._batches.results(shipment.batch):
            read += len(rows)
            found = ((number_of(shipment, row.get("custom_id")), answer_in(row)) for row in rows)
            jobs = [(number, text) for number, text in found if number is not None]
            ours += len(jobs)
            landed = self._shipments.land(shipment, jobs)
            if not self._wait_for_room(shipment, landed):
                return LOOK_EVERY
        if read < shipment.requests:
            raise ValueError(_CUT_SHORT)  # what is missing may have been answered, and paid for
        if not ours:
            self._shipments.note(shipment, batch="", adopted=0)  # it was adopted, and is another program's
        else:
            self._shipments.land_undone(shipment)
        return 0.0

    def _wait_for_room(self, shipment: Shipment, landed: Landed) -> bool:
        """Wait until jobs have taken up their answers; whether reading may go on."""
        until = time.monotonic() + WAITS
        while landed.waiting >= MOST_WAITING:
            if self._stops() or time.monotonic() > until:
                return False
            time.sleep(LOOK_EVERY)
            landed = self._shipments.land(shipment)
        return not self._stops()

    def _is_late(self, shipment: Shipment) -> bool:
        return self._shipments.now_ms() >= shipment.promoted_at_ms(self._lane)

    def _is_given_up(self, shipment: Shipment) -> bool:
        """Whether a batch that should have ended has not for too long: half of what is left until the deadline."""
        since = shipment.cancelled_ms or shipment.promoted_at_ms(self._lane)
        return self._shipments.now_ms() - since >= self._lane.promote_before * _MS_PER_S / 2

    def _give_up(self, shipment: Shipment) -> float:
        undone = self._shipments.land_undone(shipment)
        logger.warning("%s: %s has not ended, %d jobs go live", self._lane.name, shipment.batch, undone)
        return 0.0

    def _until_promoted(self, shipment: Shipment, pause: float) -> float:
        left = (shipment.promoted_at_ms(self._lane) - self._shipments.now_ms()) / _MS_PER_S
        return max(LOOK_EVERY, min(pause, left)) if left > 0 else pause

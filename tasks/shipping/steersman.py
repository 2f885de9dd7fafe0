"""The thread that ships a lane's jobs: of all workers that serve the lane one has the helm, and another follows it."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import redis
from celery import bootsteps

from celery_app.broker.shipments import MOST_JOBS, HelmLost, Shipments
from celery_app.budget.prices import part_in_batch
from celery_app.connections.redis_client import heartbeat_client, key_prefix, redis_client
from celery_app.keys import SHIPMENTS
from celery_app.process.away import say_away
from celery_app.process.heartbeat import HEARTBEAT, Entry
from celery_app.settings import settings_of
from celery_app.worker.start import lanes_of

if TYPE_CHECKING:
    from collections.abc import Container

    from celery_app.broker.shipments import Shipment
    from celery_app.lanes import Lane
    from tasks.shipping.voyage import Voyage

logger = logging.getLogger(__name__)

#: Seconds between two signs of life of a steersman: two may fail.
SIGN_EVERY = 4.0

#: Seconds between two looks at what waits.
LOOK_EVERY = 1.0

#: Seconds for which jobs of a model gather before they are shipped, as long as more of them come.
GATHERS_FOR = 20.0

#: Seconds that a worker which stops waits for it; it goes on while jobs are finished.
STOPS_WITHIN = 3.0

#: Seconds until a thread that met a defect of ours goes on.
_PAUSE = 10.0


class Shipping(bootsteps.StartStopStep):
    """The step of a worker's start that ships jobs of its lanes; where no lane is set to, there is nothing."""

    name = "lanes-shipping"
    requires = ("celery_app.worker.start:LaneWorker",)

    def __init__(self, worker: Any, **options: Any) -> None:
        self._steersmen: list[Steersman] = []
        super().__init__(worker, **options)

    def include_if(self, worker: Any) -> bool:
        """Return whether it serves a lane."""
        return bool(lanes_of(worker))

    def start(self, worker: Any) -> None:
        """Ship from now on; where that was switched off, bring in what is under way."""
        self._steersmen = [Steersman(worker.app, lane) for lane in _shipping(worker.app, lanes_of(worker))]
        for steersman in self._steersmen:
            steersman.start()

    def stop(self, worker: Any) -> None:
        """Leave the helm to others."""
        for steersman in self._steersmen:
            steersman.stop()

    close = terminate = stop


def _shipping(app: Any, served: Container[str]) -> list[Lane]:
    lanes = [lane for lane in settings_of(app).lanes if lane.name in served]
    return [lane for lane in lanes if lane.message_batches or _has_shipments(app, lane)]


def _has_shipments(app: Any, lane: Lane) -> bool:
    try:
        return bool(redis_client(app).exists(SHIPMENTS.of(key_prefix(app), lane.name)))
    except redis.RedisError:
        return False  # nobody knows; the next worker that starts sees them


class Steersman:
    """Ships the jobs of one lane while it has the helm; waits for the helm otherwise."""

    def __init__(self, app: Any, lane: Lane) -> None:
        self._app, self._lane = app, lane
        self._over = threading.Event()
        self._has_helm = False
        self._next_look: dict[str, float] = {}
        self._gathering: dict[str, tuple[float, int]] = {}
        self._shipments = Shipments(redis_client(app), key_prefix(app), lane, partial(part_in_batch, settings_of(app)))
        self._signing = Entry(f"ship jobs of {lane.name}", SIGN_EVERY, self._sign)
        self._thread = threading.Thread(target=self._run, name=f"lanes-shipping-{lane.name}", daemon=True)

    def start(self) -> None:
        """Begin; the helm is another worker's, perhaps."""
        HEARTBEAT.wake(self._signing, at_once=True)
        self._thread.start()

    def stop(self) -> None:
        """End, after the step that goes on; a batch that is being created at this moment is to be noted."""
        self._over.set()
        self._thread.join(STOPS_WITHIN)

    def _sign(self) -> bool:
        self._has_helm = self._shipments.steer(heartbeat_client(self._app))
        return True

    def _run(self) -> None:
        self._ship()
        HEARTBEAT.end(self._signing)
        with suppress(redis.RedisError):  # it lapses
            self._shipments.leave()

    def _ship(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            if not self._has_helm:
                self._next_look.clear()
                self._gathering.clear()
                continue
            try:
                self._round()
            except HelmLost:
                self._has_helm = False
            except redis.RedisError as exc:
                say_away("jobs cannot be shipped at the moment", exc)
            except Exception:
                logger.exception("%s: jobs cannot be shipped", self._lane.name)
                self._over.wait(_PAUSE)

    def _round(self) -> None:
        """Begin the shipments that are due, and take each one that is under way a step on."""
        from tasks.shipping.voyage import Voyage

        waiting = self._shipments.waiting() if self._lane.message_batches else {}
        for model, jobs in waiting.items():
            if self._has_gathered(model, jobs):
                self._shipments.begin(model)
        voyage = Voyage(self._shipments, self._batches(), self._over.is_set)
        under_way = self._shipments.all()
        for shipment in under_way:
            if self._over.is_set() or not self._has_helm:
                return
            if time.monotonic() >= self._next_look.get(shipment.id, 0.0):
                self._next_look[shipment.id] = time.monotonic() + self._step(voyage, shipment)
        ids = {shipment.id for shipment in under_way}
        self._next_look = {own: at for own, at in self._next_look.items() if own in ids}

    def _step(self, voyage: Voyage, shipment: Shipment) -> float:
        try:
            return voyage.step(shipment)
        except (HelmLost, redis.RedisError):
            raise
        except Exception:
            # A defect, or a full disk: the other shipments go on.
            logger.exception("%s: a shipment cannot be taken on", self._lane.name)
            return voyage.unforeseen(shipment)

    def _has_gathered(self, model: str, jobs: int) -> bool:
        """Whether no more jobs of a model have come since the last look, or they have gathered for long enough."""
        since, before = self._gathering.get(model, (time.monotonic(), 0))
        if jobs and (jobs == before or jobs >= MOST_JOBS or time.monotonic() - since >= GATHERS_FOR):
            self._gathering.pop(model, None)
            return True
        self._gathering[model] = (since, jobs)
        return False

    def _batches(self) -> Any:
        from tasks.shipping.batches import MessageBatches

        settings = settings_of(self._app)
        return MessageBatches(settings.api_key(self._lane) or "", settings.base_url)

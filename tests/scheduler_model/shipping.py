"""What the workers do that ship jobs, and that take over from each other."""

import itertools

from kit.script_client import LANES as NAMES
from redis import Redis

from celery_app.broker.shipments import HelmLost, Shipment, Shipments
from celery_app.lanes import LANES
from scheduler_model.ground import Ground


class Shipping(Ground):
    """Of two steersmen of each lane one has the helm; whoever has lost it changes nothing."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.steersmen = {
            lane.name: [Shipments(self.client, "", lane) for _ in range(2)]  # type: ignore[arg-type]
            for lane in LANES
        }
        self._answers = itertools.count()

    def steer(self, lane: int, which: int, leaves: int) -> None:
        """A worker gives its sign as the lane's steersman, or leaves the helm; the first one's lasts for a while."""
        steersman = self._steersman(lane, which)
        if leaves % 4 == 1:
            steersman.leave()
        else:
            steersman.steer()
        self._look()

    def ship(self, lane: int, which: int, model: int, piece: int) -> None:
        """A steersman takes waiting jobs into a new shipment, or more of them into one that there is."""
        steersman = self._steersman(lane, which)
        models = sorted(steersman.waiting())
        if not models:
            return
        try:
            if not steersman.all():
                steersman.begin(models[model % len(models)])
            shipment = steersman.all()[-1]
            before = self._aboard(shipment)
            for _ in range(1 + piece % 2):  # it may not have heard the answer
                steersman.load(shipment, shipment.pieces + 1)
                self._look(moved=self._waiting_jobs())
            assert before <= self._aboard(shipment), "what was in a shipment left it"
        except HelmLost:
            self._look()

    def land(self, lane: int, which: int, job: int, how: int) -> None:
        """A job comes back, with its answer or undone; saying it again changes nothing."""
        steersman = self._steersman(lane, which)
        aboard = [(shipment, each) for shipment in steersman.all() for each in steersman.cargo(shipment)]
        if not aboard:
            return
        shipment, (number, own) = aboard[job % len(aboard)]
        answer = f'{{"answer": {next(self._answers)}}}' if how % 3 else ""
        for _ in range(1 + how % 2):
            try:
                steersman.land(shipment, [(number, answer)], over=True)
            except HelmLost:
                self._look()
            else:
                self._look(moved={own})
                assert "shipped" not in self.seen.jobs[own].places, f"{own} is still in its shipment"

    def land_all(self) -> None:
        """All that is in shipments goes live."""
        for both in self.steersmen.values():
            both[1].leave()
            both[0].steer()
            for shipment in both[0].all():
                both[0].land_undone(shipment)
        self._look(moved=set(self.seen.jobs))

    def _steersman(self, lane: int, which: int) -> Shipments:
        return self.steersmen[NAMES[lane % len(NAMES)]][which % 2]

    def _aboard(self, shipment: Shipment) -> set[str]:
        steersman = self.steersmen[NAMES[0]][0]
        return {own for _, own in steersman.cargo(shipment)}

    def _waiting_jobs(self) -> set[str]:
        return {own for own, placed in self.seen.jobs.items() if placed.places & {"line", "scheduled"}}

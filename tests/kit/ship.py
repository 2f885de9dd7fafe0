"""The steersman of `batch` by hand, whose jobs have a price."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import SecretStr

from celery_app import LANES, create_app
from celery_app.broker.shipments import Shipment, Shipments
from celery_app.client import Client
from celery_app.configuration.prices import Price
from celery_app.connections.redis_client import redis_client
from celery_app.lanes import BATCH
from celery_app.settings import Settings
from kit.shipping_rig import SHIPPING
from tests.conftest import close

#: Dollars of a call at most: 1,000 tokens of an answer, and a prompt that costs nothing.
EACH = 0.01


class Ship:
    """The steersman of `batch`, whose calls cost half."""

    def __init__(self, app: Any) -> None:
        self.app, self.redis = app, redis_client(app)
        self.shipments = Shipments(self.redis, "", SHIPPING, lambda _: 0.5)
        assert self.shipments.steer()

    def submit(self, number: int, tenant: str | None = None) -> list[str]:
        """Submit so many calls that cost a cent each at most."""
        call = {"model": "m", "max_tokens": 1_000, "messages": [{"role": "user", "content": "x"}]}
        return [Client(self.app).submit("batch", tenant=tenant, **call).id for _ in range(number)]

    def load(self) -> tuple[Shipment, int]:
        """Return a new shipment, and how many it has."""
        self.shipments.begin("m")
        shipment = self.shipments.all()[-1]
        return shipment, self.shipments.load(shipment, 1)[0]

    def spent(self, name: str = "lane|batch") -> float:
        """Return the dollars that a cap counts."""
        return float(self.redis.hget(f"lanes:quota:{name}", "usd") or 0) / 1e9

    def land(self, shipment: Shipment, answer: str) -> list[str]:
        """Have all come back."""
        jobs = self.shipments.cargo(shipment)
        self.shipments.land(shipment, [(number, answer) for number, _ in jobs], over=True)
        return [own for _, own in jobs]


@contextmanager
def ship_of(broker_url: str) -> Iterator[Ship]:
    """Give one that has the helm, of an empty broker."""
    lanes = tuple(SHIPPING if lane.name == BATCH.name else lane for lane in LANES)
    prices = {"*": Price.model_validate({"in": 0, "out": 10})}
    app = create_app(Settings(broker_url=broker_url, api_keys={"batch": SecretStr("k")}, lanes=lanes, prices=prices))
    try:
        yield Ship(app)
    finally:
        close(app)

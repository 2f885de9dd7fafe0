"""A shipment whose steps meet what the simulated API does not do at will: an API that is told what to say."""

import httpx2
import pytest
from anthropic import APIConnectionError, APIStatusError
from kit.ship import EACH, ship_of

from celery_app import controls
from celery_app.client import Client
from tasks.shipping import voyage as module
from tasks.shipping.batches import Batch
from tasks.shipping.voyage import Voyage

REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/messages/batches")


def status(code, kind="authentication_error"):
    """Return the SDK's error for a status."""
    response = httpx2.Response(code, request=REQUEST, json={"error": {"type": kind, "message": "no"}})
    return APIStatusError("no", response=response, body=response.json())


class Api:
    """An API that refuses to create a batch as it is told, and notes what it is asked for."""

    def __init__(self, now) -> None:
        self.refusal, self.others, self.now = None, [], now
        self.created, self.cancelled, self.looks = 0, [], 0

    def create(self, _body):
        """Create a batch, or refuse to."""
        self.created += 1
        if self.refusal:
            raise self.refusal
        return Batch("ours", ended=False, requests=1, created_at=self.now() / 1000)

    def retrieve(self, batch):
        """Tell of a batch, which never ends."""
        return Batch(batch, ended=False, requests=1, created_at=self.now() / 1000)

    def cancel(self, batch):
        """Note it."""
        self.cancelled.append(batch)

    def since(self, _moment):
        """List what others have."""
        self.looks += 1
        return iter(self.others)


@pytest.fixture
def ship(broker_url):
    """One that has the helm."""
    with ship_of(broker_url) as ship:
        yield ship


@pytest.fixture
def api(ship):
    """An API that can be told what to say."""
    return Api(ship.shipments.now_ms)


def step(ship, api):
    """Take the only shipment a step on."""
    (shipment,) = ship.shipments.all()
    return Voyage(ship.shipments, api, lambda: False).step(shipment)


def begin(ship, jobs=1):
    """Begin a shipment of so many jobs."""
    ship.submit(jobs)
    ship.shipments.begin("m")


def test_what_a_cap_keeps_back_keeps_nothing_aboard_from_leaving(ship, api):
    """Jobs beyond the cap do not hold up those that have room, and are no reason to begin at once again."""
    controls.set_limits(ship.app, {"usd_per_day": 3.5 * EACH / 2}, lane="batch")
    begin(ship, jobs=200)
    step(ship, api)
    (shipment,) = ship.shipments.all()
    assert (shipment.batch, shipment.requests) == ("ours", 3)
    assert ship.shipments.waiting() == {"m": 0}


def test_a_refusal_of_the_account_keeps_the_jobs_at_half_the_price(ship, api):
    """They stay aboard and are sent later: a key that is changed is no reason to pay twice as much."""
    begin(ship)
    api.refusal = status(401)
    step(ship, api)
    assert ship.redis.zcard("lanes:shipped") == 1
    api.refusal = None
    step(ship, api)
    assert ship.shipments.all()[0].batch == "ours"


def test_a_batch_whose_creation_took_long_is_looked_for_from_its_loss_on(ship, api, monkeypatch):
    """Its upload may take minutes, and the time to find it begins when nobody has heard of it."""
    begin(ship)
    api.refusal = APIConnectionError(request=REQUEST)
    step(ship, api)
    (shipment,) = ship.shipments.all()
    ship.shipments.note(shipment, sending=shipment.sending_ms - 60_000)
    step(ship, api)
    step(ship, api)
    assert (api.created, api.looks) == (1, 2)
    monkeypatch.setattr(module, "APPEARS_WITHIN_MS", 0)
    api.refusal = None
    step(ship, api)
    step(ship, api)
    assert api.created == 2


def test_a_batch_that_was_found_is_never_cancelled(ship, api):
    """It may be another program's, as large by chance; its jobs go live where nobody wants it any more."""
    begin(ship)
    api.refusal = APIConnectionError(request=REQUEST)
    step(ship, api)
    api.others = [Batch("theirs", ended=False, requests=1, created_at=api.now() / 1000)]
    step(ship, api)
    (shipment,) = ship.shipments.all()
    assert (shipment.batch, shipment.is_adopted) == ("theirs", True)
    ship.redis.hset(f"lanes:shipment:{shipment.id}", "begun", 0)
    step(ship, api)
    assert (api.cancelled, ship.shipments.all()) == ([], [])
    assert ship.redis.hget("lanes:counts", "batch:queued") == b"1"


def test_a_job_that_is_cancelled_before_it_is_shipped_ends(ship):
    """Nobody pays for it, also where its whole batch was cancelled."""
    call = {"model": "m", "max_tokens": 1_000, "messages": [{"role": "user", "content": "x"}]}
    batch = Client(ship.app).submit_many([call, call], lane="batch")
    batch.cancel()
    assert ship.load()[1] == 0
    assert (ship.redis.zcard("lanes:ended"), ship.spent()) == (2, 0)

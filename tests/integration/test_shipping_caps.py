"""Caps on money, and jobs that go to the API's batches: what is aboard is money, too."""

import time

import pytest
from celery.app.task import Context
from kit.ship import EACH, ship_of
from kit.waiting import wait_until

from celery_app import controls
from celery_app.broker.claims import CLAIM_PROPERTY, QUEUE, delivery_of
from celery_app.budget import Usage
from celery_app.budget.bill import Payer, bill_of
from celery_app.scheduler.scripts import CHARGE
from celery_app.settings import settings_of
from tasks.call import LandedCall
from tasks.job import Job

ANSWER = '{"type": "message", "content": []}'
REFUSAL = '{"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}'


@pytest.fixture
def ship(broker_url):
    """One that has the helm."""
    with ship_of(broker_url) as ship:
        yield ship


def test_no_more_is_shipped_than_a_cap_allows_and_the_rest_follows_when_it_may(ship):
    """A call counts with the half that it costs at most; what is left out waits where it is."""
    controls.set_limits(ship.app, {"usd_per_day": 3.5 * EACH / 2}, lane="batch")
    ship.submit(5)
    assert ship.load()[1] == 3
    assert ship.spent() == pytest.approx(3 * EACH / 2)
    assert ship.load()[1] == 0
    controls.set_limits(ship.app, {"usd_per_day": 1}, lane="batch")
    assert wait_until(lambda: ship.load()[1], "it has room") == 2


def test_what_comes_back_undone_has_cost_nothing_and_an_answer_what_it_has_cost_once(ship):
    """The estimate is taken back, and the true figure is put in its place, whoever says so twice."""
    ship.submit(2)
    shipment, _ = ship.load()
    assert ship.spent() == pytest.approx(EACH)
    ship.land(shipment, "")
    assert ship.spent() == 0
    ship.submit(1)
    shipment, _ = ship.load()
    (own,) = ship.land(shipment, ANSWER)
    used = Usage(input_tokens=0, output_tokens=200)
    used, bill = bill_of(settings_of(ship.app), Payer("batch", "m", "", ""), used, time.time(), shipped=True)
    for _ in range(2):
        CHARGE.run(ship.redis, (), ("", own, bill, used.usd))
    assert ship.spent() == pytest.approx(EACH / 10)


@pytest.mark.parametrize(
    ("outcome", "reason", "left"), [("failed", "400 invalid_request_error", 0), ("unsent", "", EACH / 2)]
)
def test_an_answer_that_is_an_error_is_free_and_a_job_that_comes_back_keeps_what_it_took(ship, outcome, reason, left):
    """Caps have the estimate of a refused one back, and no bill is written; one that was given back runs again."""
    ship.submit(1)
    shipment, _ = ship.load()
    (own,) = ship.land(shipment, REFUSAL)
    claimed = {CLAIM_PROPERTY: "t", QUEUE: "batch", "delivery_tag": delivery_of(own, "t")}
    job = Job.of(ship.app, "tasks.create_message", Context(id="x", properties=claimed, called_directly=False))
    call = LandedCall(job, ship.redis, "", REFUSAL.encode())
    call.failed(outcome, None, reason)
    for _ in range(2):
        call.settle()
    assert ship.spent() == pytest.approx(left)
    assert not ship.redis.keys("lanes:spent:*")


def test_a_tenant_at_its_cap_keeps_no_other_ashore(ship):
    """Those of others come before it, however many it has."""
    controls.set_limits(ship.app, {"usd_per_day": EACH / 4}, tenant="poor")
    ship.submit(60, tenant="poor")
    ship.submit(2, tenant="rich")
    shipment, aboard = ship.load()
    for piece in range(2, 4):
        aboard, _ = ship.shipments.load(shipment, piece)
    assert aboard == 2

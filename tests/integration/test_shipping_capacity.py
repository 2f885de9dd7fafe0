"""A hundred thousand jobs are shipped and land, and hold the broker up for a moment each time."""

import itertools

import pytest
from kit.client_rig import params
from kit.shipping_rig import SHIPPING, shipping_rig
from redis import Redis

from celery_app.broker.shipments import PIECE, Shipments

pytestmark = pytest.mark.slow

DB = 11

JOBS = 100_000

#: Seconds of the server's own time that a script may take: other commands wait for so long.
AT_ONCE_S = 0.005

#: Pieces after which a steersman says that it is alive, as its heartbeat does.
_SIGN_AFTER = 200


def cpu_s(redis: Redis) -> float:
    """Return the seconds that the server has computed for."""
    found = redis.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def test_shipping_and_landing_hold_the_broker_up_for_milliseconds(valkey, tmp_path):
    """Each script moves 50 jobs, which takes 5 ms at most; and all jobs are in one shipment, then in their line."""
    with shipping_rig(valkey, DB, tmp_path) as rig:
        rig.client.submit_many((params(f"document {number}") for number in range(JOBS)), lane="batch", wait=600)
        shipments = Shipments(rig.redis, "", SHIPPING)
        assert shipments.steer()
        shipments.begin("m")
        (shipment,) = shipments.all()
        begun = cpu_s(rig.redis)
        for piece in itertools.count(1):
            _, more = shipments.load(shipment, piece)
            if not more:
                break
            assert piece % _SIGN_AFTER or shipments.steer()
        assert (cpu_s(rig.redis) - begun) / (JOBS / PIECE) < AT_ONCE_S
        assert rig.redis.zcard("lanes:shipped") == JOBS

        begun = cpu_s(rig.redis)
        for piece in itertools.count(1):
            jobs = [(number, '{"type": "message", "content": []}') for number, _ in shipments.cargo(shipment)]
            if not shipments.land(shipment, jobs, over=True).left:
                break
            assert piece % _SIGN_AFTER or shipments.steer()
        assert (cpu_s(rig.redis) - begun) / (JOBS / PIECE) < AT_ONCE_S
        assert rig.redis.zcard("lanes:line:batch:0::") == JOBS

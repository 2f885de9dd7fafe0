"""Every job ends, and whoever waits for it hears how: whatever the result backend, a revocation or Redis does to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from broker_kit.server import Server
from broker_kit.waiting import eventually
from client_rig import PATIENCE, params, web_app
from worker_process import worker as worker_process

from celery_app.broker.lease import Leases
from celery_app.client import Client
from celery_app.demo.ezai import Behaviour, running
from celery_app.metrics.stats import get_queue_stats
from tests.conftest import close

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Valkey

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Ways in which a real server refuses a result for a while, and how each ends.
REFUSALS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "NoPermissionError": (
        lambda redis: redis.execute_command("ACL", "SETUSER", "default", "-setex"),
        lambda redis: redis.execute_command("ACL", "SETUSER", "default", "+setex"),
    ),
    "NOREPLICAS": (
        lambda redis: redis.config_set("min-replicas-to-write", 1),
        lambda redis: redis.config_set("min-replicas-to-write", 0),
    ),
}


@pytest.mark.parametrize("pool", ["threads", "prefork"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_result_that_is_refused_for_a_while_is_stored_then(
    valkey: Valkey, tmp_path: Path, refusal: str, pool: str
) -> None:
    """Whatever the backend raises, answers are kept and paid for once, and the slots are free again."""
    refuse, accept = REFUSALS[refusal]
    with valkey.client(14) as redis, Server(tmp_path) as backend, running(Behaviour(latency=0.5)) as api:
        redis.flushdb()
        env = {
            "CELERY_BROKER_URL": valkey.url(14),
            "CELERY_RESULT_BACKEND": backend.url,
            "EZAI_API_KEY": "sk-test",
            "EZAI_BASE_URL": api.url,
        }
        app = web_app(valkey.url(14))
        app.conf.result_backend = backend.url
        client = Client(app)
        with worker_process(tmp_path, "-c", "2", "-P", pool, **env) as started, backend.client() as control:
            refuse(control)
            results = [client.submit("batch", **params()) for _ in range(2)]
            started.wait_until_it_says("results cannot be stored")
            eventually(lambda: api.summary()["statuses"].get("200") == 2, PATIENCE, "both are answered")
            accept(control)

            for result in results:
                eventually(lambda result=result: result.state == "SUCCESS", PATIENCE, "the answer is stored")
            lane = lambda: get_queue_stats(app)["lanes"]["batch"]  # noqa: E731
            eventually(lambda: lane()["in_flight"] == 0, PATIENCE, "nothing is claimed any more")
            after = [client.submit("batch", **params()) for _ in range(2)]
            for result in after:
                eventually(lambda result=result: result.state == "SUCCESS", PATIENCE, "the slots work")
            assert api.summary()["total"] == 4
            slots = 2 if pool == "prefork" else 1
            assert 1 <= started.output().count("results cannot be stored") <= slots
            assert "hello there" not in started.output()
        close(app)


def test_an_acknowledgement_that_is_refused_for_good_holds_up_no_other(tmp_path: Path) -> None:
    """Each entry is tried for itself."""
    with Server(tmp_path) as server, server.client() as redis, server.client() as control:
        leases = Leases(redis, "", "\x06\x16")
        leases.hold("bad", "t1")
        control.set("lanes:claims", "no hash")  # the server refuses both
        leases.give_back("bad", "t1")
        leases.settle("good", "t2")
        assert len(leases._unsettled) == 2
        control.set("unacked", "no hash")  # it will always refuse the first
        control.delete("lanes:claims")
        control.hset("lanes:claims", "bad", "t1|batch")

        eventually(lambda: ("good", "t2") not in leases._unsettled, PATIENCE, "the other is settled")
        assert ("bad", "t1") in leases._unsettled
        leases._unsettled.clear()
        leases.close()

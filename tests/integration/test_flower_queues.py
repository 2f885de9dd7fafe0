"""Flower's page of queues, as whoever looks at it sees it: all lanes, whether there is a worker or not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from flower_rig import Flower, flower
from kit.client_rig import params
from kit.waiting import wait_until
from kit.worker import worker

from celery_app import create_app
from celery_app.client import Client
from demo.simulator import Behaviour, running
from tasks import create_message
from tests.conftest import close

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Valkey

IN_TIME_S = 30.0
DB, PREFIX = 11, "shop:"

PROJECT = """
from celery import Celery
from celery_app import install
app = Celery("proj", set_as_current=False)
app.conf.broker_transport_options = {"global_keyprefix": "shop:"}
install(app)
"""


def counted(page: Flower) -> dict[str, tuple[int, ...]]:
    """Return lane -> its jobs in lines and waiting for a time, in lines, in flight, and its workers."""
    found = page.ask("/api/queues/length").json["active_queues"]
    columns = ("messages", "messages_ready", "messages_unacknowledged", "consumers")
    return {each["name"]: tuple(each.get(name) for name in columns) for each in found}


def on_page(page: Flower) -> list[str]:
    """Return the names of the queues that the page lists."""
    return re.findall(r'<tr id="([^"]+)"', page.ask("/broker").text)


def submit(app: Any) -> None:
    """Queue three jobs of two tenants, and two for later."""
    client = Client(app)
    for tenant in ("acme", "acme", "globex"):
        client.submit("batch", tenant=tenant, **params())
    for _ in range(2):
        app.tasks[create_message.name].apply_async(kwargs=params(), queue="batch", countdown=600)


def test_flower_counts_the_lanes_with_and_without_a_worker(valkey: Valkey, tmp_path: Path) -> None:
    """Under a prefix, of tenants, for later, in flight: each job is counted where it is; a queue of one's own, too."""
    with valkey.client(DB) as redis:
        redis.flushdb()
    (tmp_path / "proj.py").write_text(PROJECT)
    broker = valkey.url(DB)
    app = create_app()
    app.conf.update(broker_url=broker, broker_transport_options={"global_keyprefix": PREFIX})
    with running(Behaviour(latency=300.0)) as api:
        env = {"CELERY_BROKER_URL": broker, "EZAI_API_KEY": "unused", "EZAI_BASE_URL": api.url}
        with flower(tmp_path, app="proj", **env) as page:
            assert on_page(page) == ["critical", "normal", "batch", "celery"]
            submit(app)
            app.send_task("proj.own", queue="celery")
            wait_until(lambda: counted(page)["batch"] == (5, 3, 0, 0), "Flower counts the lane", IN_TIME_S)
            assert counted(page)["celery"][0] == 1
            with worker(tmp_path, "-Q", "batch", "-c", "1", app="proj", **env):
                wait_until(lambda: counted(page)["batch"] == (4, 2, 1, 1), "Flower counts what is in flight", IN_TIME_S)
                assert set(counted(page)) >= {"critical", "normal", "batch"}
    close(app)

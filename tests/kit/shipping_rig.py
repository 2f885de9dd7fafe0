"""A web app and workers whose `batch` lane ships what can wait, before a simulated API with Message Batches."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from pydantic import SecretStr
from redis import Redis

from celery_app import LANES, create_app
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.lanes import BATCH
from celery_app.settings import Settings
from demo.simulator import Behaviour, RunningServer, running
from kit.waiting import wait_until
from kit.worker import WorkerProcess, worker
from tests.conftest import Valkey, close

#: Seconds that a batch may take here: gathering, two or three looks, and a machine that is busy.
SHIPPED_WITHIN = 60.0

SHIPPING = dataclasses.replace(BATCH, message_batches=("*",))


@dataclasses.dataclass(frozen=True, slots=True)
class ShippingRig:
    """All that there is; `worker` starts a worker."""

    app: Celery
    client: Client
    api: RunningServer
    folder: Path
    env: dict[str, str]

    @property
    def redis(self) -> Redis:
        """A client of the broker."""
        return redis_client(self.app)

    @contextmanager
    def worker(self, lanes: str = "critical,normal,batch", **env: str) -> Iterator[WorkerProcess]:
        """Run a worker."""
        with worker(self.folder, "-Q", lanes, "-c", "8", **{**self.env, **env}) as started:
            yield started

    def batches(self) -> list[dict[str, Any]]:
        """Return what the API tells of its batches, the first one first."""
        return list(self.api.batches()["batches"])

    def wait_for_batches(self, number: int = 1) -> None:
        """Wait until the API has so many."""
        wait_until(lambda: len(self.batches()) >= number, f"{number} batches", SHIPPED_WITHIN)

    def live(self) -> int:
        """Return the number of calls that were made live."""
        return int(self.api.summary()["total"])

    def wait_until_over(self) -> None:
        """Wait until no shipment and no job is left."""
        left = lambda: self.redis.zcard("lanes:shipments:batch") or self.redis.hlen("lanes:jobs")  # noqa: E731
        wait_until(lambda: not left(), "all is over", SHIPPED_WITHIN)


@contextmanager
def shipping_rig(valkey: Valkey, db: int, folder: Path, behaviour: Behaviour | None = None) -> Iterator[ShippingRig]:
    """Give an empty database of its own, an API, and no worker yet."""
    with valkey.client(db) as redis:
        redis.flushdb()
    url = valkey.url(db)
    lanes = tuple(SHIPPING if lane.name == BATCH.name else lane for lane in LANES)
    keys = {lane.name: SecretStr("unused") for lane in LANES}
    app = create_app(Settings(broker_url=url, result_backend=url, api_keys=keys, lanes=lanes))
    with running(behaviour) as api:
        env = {"CELERY_BROKER_URL": url, "EZAI_API_KEY": "sk-test", "EZAI_BASE_URL": api.url}
        yield ShippingRig(app, Client(app), api, folder, {**env, "LANES_BATCH_MESSAGE_BATCHES": "on"})
    close(app)


def texts_of(results: list[AsyncResult]) -> list[str]:
    """Return the beginnings of the answers of jobs, once all have one."""
    answers = [result.get(timeout=SHIPPED_WITHIN) for result in results]
    return [answer["content"][0]["text"].partition("…")[0] for answer in answers]

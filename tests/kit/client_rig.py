"""A web app's side of the lanes, with a worker and a simulated API behind them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery
from pydantic import SecretStr

from celery_app import LANES, controls, create_app, dead_letters
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.dead_letters import DeadLetter
from celery_app.lanes import Lane
from celery_app.settings import Settings
from demo.simulator import Behaviour, RunningServer, running
from kit.waiting import wait_until
from kit.worker import WorkerProcess, worker
from tests.conftest import Valkey, close

#: Seconds that any wait here may take; the slowest wait for two backoffs.
IN_TIME_S = 30.0


@dataclass(frozen=True, slots=True)
class Rig:
    """All that there is.

    Attributes:
        app: of the web app.
        client: on it.
        api: that the worker calls.
        worker: for all lanes.
        env: the environment of further workers.
    """

    app: Celery
    client: Client
    api: RunningServer
    worker: WorkerProcess
    env: dict[str, str]


@contextmanager
def rig(
    valkey: Valkey,
    db: int,
    tmp_path: Path,
    behaviour: Behaviour | None = None,
    slots: int = 8,
    *,
    options: Sequence[str] = (),
    app: str = "celery_app",
    ready: bool = True,
    lanes: tuple[Lane, ...] = LANES,
    **settings: str,
) -> Iterator[Rig]:
    """Run a worker for all lanes on an empty database of its own.

    Args:
        valkey: with the database `db`.
        db: its number.
        tmp_path: for its log.
        behaviour: of the API.
        slots: of the worker.
        options: of the worker, too.
        app: whose worker it is.
        ready: whether to wait until it says so.
        lanes: of the web app.
        settings: variables of its environment; ``{api}`` in one stands for the API's URL.
    """
    with valkey.client(db) as redis:
        redis.flushdb()
    web = web_app(valkey.url(db), lanes)
    with running(behaviour) as api:
        env = {"CELERY_BROKER_URL": valkey.url(db), "EZAI_API_KEY": "sk-test", "EZAI_BASE_URL": "{api}", **settings}
        env = {name: value.replace("{api}", api.url) for name, value in env.items()}
        words = ("-Q", "critical,normal,batch", "-c", str(slots), *options)
        with worker(tmp_path, *words, app=app, ready=ready, **env) as started:
            yield Rig(web, Client(web), api, started, env)
    close(web)


def web_app(broker: str, lanes: tuple[Lane, ...] = LANES) -> Celery:
    """Return an application that can submit jobs."""
    keys = {lane.name: SecretStr("unused") for lane in LANES}
    return create_app(Settings(broker_url=broker, result_backend=broker, api_keys=keys, lanes=lanes))


def fresh(rig: Rig, **behaviour: Any) -> Rig:
    """Return the rig as if no test had used it: with this behaviour, an empty log, and a budget that knows nothing."""
    defaults = {"latency": 0.0, "tokens_per_second": 0.0, "output_tokens": 16}
    rig.api.control(**{**defaults, **behaviour})
    rig.api.clear()
    redis = redis_client(rig.app)
    for key in redis.keys("lanes:budget:*"):
        redis.delete(key)
    return rig


@contextmanager
def nothing_set(rig: Rig) -> Iterator[Rig]:
    """A rig as if no test had used it, and nothing of this one is left behind: no control, no job."""
    yield fresh(rig)
    for lane in LANES:
        controls.resume(rig.app, lane.name)
    controls.reset_limits(rig.app)
    for job in redis_client(rig.app).hkeys("lanes:jobs"):
        rig.client.cancel(job.decode())
    fresh(rig, outage=False)
    drop_jobs(redis_client(rig.app))


def drop_jobs(redis: Any) -> None:
    """Forget all jobs and dead letters, those that a worker holds when it has let go of them.

    A job of the test before that is still at work would call the API, and teach the budget, of the test that comes.
    """

    def none_is_held() -> bool:
        for pattern in ("lanes:line:*", "lanes:tenants:*", "lanes:models:*"):
            for key in redis.keys(pattern):
                redis.delete(key)
        redis.delete("lanes:scheduled", "lanes:dead", "lanes:dead_totals", "lanes:ended", "lanes:deadlines")
        redis.hdel("lanes:counts", *(f"{lane.name}:{place}" for lane in LANES for place in ("queued", "scheduled")))
        held = set(redis.zrange("lanes:leases", 0, -1))
        for each in set(redis.hkeys("lanes:jobs")) - held:
            redis.hdel("lanes:jobs", each)
        return not held

    wait_until(none_is_held, "no worker holds a job")


def params(text: Any = "hello there", fault: str | None = None, **more: Any) -> dict[str, Any]:
    """Return the parameters of a call; `fault` is what befalls it at the API."""
    metadata = {"metadata": {"user_id": f"simulate:{fault}"}} if fault else {}
    return {"model": "m", "max_tokens": 1_000, "messages": [{"role": "user", "content": text}], **metadata, **more}


def the_dead(rig: Rig, number: int = 1) -> list[DeadLetter]:
    """Return the dead letters, which are so many: a job becomes one once whoever waits for it has been told."""
    wait_until(lambda: len(dead_letters.find(rig.app)) == number, f"{number} dead letters")
    return dead_letters.find(rig.app)


def text_of(events: Iterable[dict[str, Any]]) -> str:
    """Return the text that a reader has after these events."""
    text = ""
    for event in events:
        if event["type"] == "restart":
            text = ""
        elif event["type"] == "content_block_delta":
            text += event["delta"].get("text", "")
    return text

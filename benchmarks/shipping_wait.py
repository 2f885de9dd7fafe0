"""What a chat waits beside a lane that ships: alone, and while thousands of jobs go to Message Batches and come back.

One worker has the critical lane alone, another one ships and runs what comes back. The time is that of a whole `ask`
whose call takes 50 ms. Needs the extra `embedded`.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.bench import main, percentiles
from pydantic import SecretStr
from rig import Rig

from celery_app import LANES, create_app
from celery_app.client import Client
from celery_app.lanes import BATCH
from celery_app.settings import Settings

if TYPE_CHECKING:
    import argparse

#: Seconds of a chat's call, and between two chats.
CALL_S, EVERY_S = 0.05, 0.2

#: Seconds in which all must be back.
WITHIN = 600.0

_API = ("--latency", str(CALL_S), "--jitter", "0", "--batch-latency", "5")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ask alone, then beside shipping, until every job is back."""
    with Rig(*_API) as rig:
        os.environ.update(rig.environment)
        client = Client(_app(rig.broker_url))
        rig.worker("chat", "-Q", "critical", "-c", "4")
        _ask(client)
        alone = [_ask(client) for _ in range(arguments.chats)]
        batch = client.submit_many(map(_document, range(arguments.jobs)), lane="batch", wait=WITHIN)
        env = {"LANES_BATCH_MESSAGE_BATCHES": "on"}
        rig.worker("ship", "-Q", "batch", "-c", "4", **env)
        beside, begun = [], time.monotonic()
        while not batch.counts().complete:
            if time.monotonic() - begun > WITHIN:
                raise SystemExit(f"not within {WITHIN} s: {batch.counts()}")
            beside.append(_ask(client))
        live = rig.summary()["statuses"].get("200", 0) - len(alone) - len(beside) - 1
    before, during = percentiles(alone), percentiles(beside)
    ratios = {name: round(during[name] / before[name], 3) for name in ("p50", "p95")}
    return {"alone_ms": before, "beside_ms": during, "beside_to_alone": ratios, "chats": len(beside), "made_live": live}


def _ask(client: Client) -> float:
    """Return the milliseconds of a chat, and rest."""
    begun = time.perf_counter()
    client.ask(lane="critical", **_call("hello"))
    took = time.perf_counter() - begun
    time.sleep(EVERY_S)
    return took * 1000


def _call(text: str) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": text}]}


def _document(number: int) -> Any:
    return _call(f"document {number}")


def _app(url: str) -> Any:
    lanes = tuple(
        dataclasses.replace(each, message_batches=("*",)) if each.name == BATCH.name else each for each in LANES
    )
    keys = {lane.name: SecretStr("unused") for lane in LANES}
    return create_app(Settings(broker_url=url, result_backend=url, api_keys=keys, lanes=lanes))


def say(figures: dict[str, Any]) -> str:
    """Return the figures for people."""
    return "\n".join(f"{name:16} {value}" for name, value in figures.items())


if __name__ == "__main__":
    main(__doc__, measure, say, jobs=10_000, chats=100)

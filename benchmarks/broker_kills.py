"""What becomes of jobs whose workers are killed: ``--stock`` for stock Celery, ``--broker-kills 5`` for the broker."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit import kills
from kit.bench import main
from kit.broker import Broker
from kit.server import Server

if TYPE_CHECKING:
    import argparse


def measure(arguments: argparse.Namespace) -> Any:
    """Return what became of the jobs."""
    app = "kit.stock" if arguments.stock else "kit.project"
    plan = kills.Plan(jobs=arguments.jobs, kills=arguments.kills, broker_kills=arguments.broker_kills, app=app)
    with tempfile.TemporaryDirectory(prefix="broker-bench-") as name:
        folder = Path(name)
        server, notes = (
            Server(folder / "broker", durable=plan.broker_kills > 0),
            Server(folder / "event_log", durable=False),
        )
        with server, notes, Broker(folder, server.url, notes.url) as broker:

            def kill_broker() -> None:
                server.kill()
                server.start()

            outcome = kills.run(broker, plan, kill_broker)
    figures = dataclasses.asdict(outcome)
    figures.update(
        lost=len(outcome.lost), killed=len(outcome.killed), back_s=round(max(outcome.back_s, default=0.0), 2)
    )
    return {**figures, "says": str(outcome)}


def say(figures: Any) -> str:
    """Return a line."""
    return str(figures["says"])


if __name__ == "__main__":
    main(__doc__, measure, say, jobs=30_000, kills=60, broker_kills=0, stock=False)

"""Walk through the scheduler's states at random: any order of moves, crashes, lost answers and repeated commands.

Each move runs a real script on a real server; after each, every job has to be in exactly one place, and what the move
may not change has to be as it was. A walk of 300 moves ends with one worker that does all that is left. What fails is
printed with the number that makes the same walk again: ``--seed N --steps 300``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.bench import main
from kit.server import Server
from scheduler_model.moves import make, random_move
from scheduler_model.world import World

if TYPE_CHECKING:
    import argparse

    from redis import Redis

#: Moves of one walk, and seconds between two lines of progress.
WALK, PROGRESS_EVERY = 300, 10.0


def walk(client: Redis, seed: int) -> tuple[Counter[str], Counter[str], str | None]:
    """Walk once; return how jobs ended, which moves were made, and what is wrong."""
    world, random, made = World(client), Random(seed), Counter[str]()
    try:
        for _ in range(WALK):
            name, numbers = random_move(random)
            made[name] += 1
            make(world, name, numbers)
        world.drain()
    except AssertionError as exc:
        return world.finished, made, f"seed {seed}, move {made.total()}: {exc}"
    return world.finished, made, None


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return how many moves were made, of which kinds, how jobs ended, and what was wrong."""
    ended, made, wrong = Counter[str](), Counter[str](), list[str]()
    began = said = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="model-") as folder, Server(Path(folder), durable=False) as server:
        client = server.client()
        for seed in range(arguments.seed, arguments.seed + -(-arguments.steps // WALK)):
            exits, moves, fault = walk(client, seed)
            ended, made = ended + exits, made + moves
            wrong += [fault] if fault else []
            if time.monotonic() - said > PROGRESS_EVERY:
                said = time.monotonic()
                print(f"{made.total():,} moves, {len(wrong)} violations", file=sys.stderr)
        client.close()
    return {
        "moves": made.total(),
        "violations": wrong,
        "ended": dict(ended),
        "made": dict(made),
        "seconds": round(time.monotonic() - began),
    }


def say(figures: Any) -> str:
    """Return lines."""
    ended = ", ".join(f"{number:,} {how}" for how, number in sorted(figures["ended"].items()))
    head = (
        f"{figures['moves']:,} moves in {figures['seconds']} s: {len(figures['violations'])} violations; jobs: {ended}"
    )
    return "\n".join([head, *figures["violations"]])


if __name__ == "__main__":
    main(__doc__, measure, say, steps=1_000_000, seed=0)

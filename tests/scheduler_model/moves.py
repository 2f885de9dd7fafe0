"""The moves that a world can make, each with the numbers that choose what it is made with."""

from random import Random

from scheduler_model.world import World

#: Name of the move -> how many numbers it takes, and how often it is made among others.
MOVES = {
    "publish": (6, 8),
    "publish_again": (1, 2),
    "publish_many": (3, 1),
    "claim": (4, 9),
    "extend": (1, 4),
    "ack": (3, 6),
    "requeue": (5, 4),
    "dead_letter": (3, 1),
    "decide": (2, 2),
    "settle": (2, 4),
    "die": (1, 1),
    "cancel": (1, 1),
    "take_ended": (2, 2),
    "done_ended": (2, 2),
    "replay": (2, 1),
    "drop_dead": (1, 1),
    "set_cap": (2, 1),
    "wait": (1, 6),
}

#: A number that chooses is below this: a multiple of all that is chosen from.
MOST = 5_040

#: ms that pass at most in one wait: a lease and a half.
_MOST_MS = 22_000


def make(world: World, name: str, numbers: list[int]) -> None:
    """Make one move.

    Args:
        world: to make it in.
        name: of the move.
        numbers: that choose, each below `MOST`.
    """
    if name == "wait":
        numbers = [numbers[0] ** 4 * _MOST_MS // MOST**4]  # mostly short
    getattr(world, name)(*numbers)


def random_move(random: Random) -> tuple[str, list[int]]:
    """Return any move, the frequent ones more often."""
    (name,) = random.choices(list(MOVES), weights=[often for _, often in MOVES.values()])
    return name, [random.randrange(MOST) for _ in range(MOVES[name][0])]

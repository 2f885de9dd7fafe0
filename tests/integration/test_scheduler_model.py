"""The scheduler as a whole, on its real scripts: in no order of what may happen is a job lost, doubled or stuck."""

from random import Random
from typing import ClassVar

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from redis import Redis
from scheduler_model.moves import MOST, MOVES, make, random_move
from scheduler_model.world import World


def _rule(name: str, numbers: int):  # type: ignore[no-untyped-def]
    @rule(numbers=st.lists(st.integers(0, MOST - 1), min_size=numbers, max_size=numbers))
    def move(self: Machine, numbers: list[int]) -> None:
        make(self.world, name, numbers)

    return move


class Machine(RuleBasedStateMachine):
    """Makes moves in a world of its own; at the end of each run the world is drained."""

    redis: ClassVar[Redis]

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.redis)

    def teardown(self) -> None:
        """Have one worker do all that is left."""
        self.world.drain()


for _name, (_numbers, _) in MOVES.items():
    setattr(Machine, f"move_{_name}", _rule(_name, _numbers))


def test_no_order_of_moves_loses_or_doubles_a_job(client):
    """In each order that hypothesis tries, with crashes and lost answers, each job is in one place and ends once."""
    Machine.redis = client
    run_state_machine_as_test(Machine, settings=settings(max_examples=25, stateful_step_count=50, deadline=None))  # type: ignore[no-untyped-call]


def test_a_long_walk_loses_and_doubles_no_job(client):
    """The same for a thousand moves at random in five worlds; `benchmarks/model_check.py` makes a million."""
    for seed in range(5):
        world, random = World(client), Random(seed)
        for _ in range(200):
            make(world, *random_move(random))
        world.drain()

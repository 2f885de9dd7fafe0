"""What a job costs the server, whatever the job says or leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker_kit.hand import Hand

from celery_app.routing import MODEL

if TYPE_CHECKING:
    from redis import Redis

#: As large as README's own example sends them.
TEXT = "a word, " * 1_000

#: Rounds of the same, against a busy machine's noise.
JOBS = 20


def server_us(client: Redis) -> float:
    """Return the microseconds that the server has spent on scripts."""
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("usec", 0) for name in ("eval", "evalsha"))


def cost_of_jobs(app: Any, client: Redis, headers: dict[str, Any]) -> float:
    """Return what the server spends on publishing, claiming, returning and settling jobs with these headers."""
    hand, before = Hand(client), server_us(client)
    for _ in range(JOBS):
        app.send_task("kit.job", (TEXT,), queue="batch", ignore_result=True, headers=headers)
    for held in hand.claim(JOBS):
        hand.give_back(held)
    for held in hand.claim(JOBS):
        hand.settle(held)
    return server_us(client) - before


def test_a_job_without_a_model_costs_the_server_what_one_with_a_model_costs(lanes_app: Any, valkey: Any) -> None:
    """A field that a job lacks is looked for once, not again from each byte of its text."""
    with valkey.client() as client:
        cost_of_jobs(lanes_app, client, {MODEL: "warm-up"})
        with_model = cost_of_jobs(lanes_app, client, {MODEL: "claude-haiku-4-5"})
        without = cost_of_jobs(lanes_app, client, {})
    assert without < 5 * with_model

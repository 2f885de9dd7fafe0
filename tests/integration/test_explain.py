"""Why a job waits, and for how long: what is told is what happens."""

import pytest
from kit.scheduler import Scheduler
from redis import Redis

from celery_app.budget import Budget
from celery_app.lanes import BATCH, LANES
from celery_app.metrics.explanation import Explanation, explanation_of
from celery_app.metrics.reasons import job_reasons
from celery_app.metrics.shortage import Shortage, explain_arguments
from celery_app.scheduler.scripts import EXPLAIN
from celery_app.settings import Limits


def budget(model: str = "m", rpm: int | None = 60) -> Budget:
    """Return a model's own budget."""
    return Budget(f"key:{model}", model, Limits(rpm=rpm), LANES, sharers=("batch",))


def explained(scheduler: Scheduler, name: str) -> Explanation:
    """Explain a job to somebody who knows that a worker serves batch."""
    scheduler.raw.zadd("lanes:workers:batch", {"worker": 1e15})
    (row,) = EXPLAIN.run(scheduler.client, (), explain_arguments("", LANES, name, [1.0] * len(LANES)))
    found = Shortage.of(row)
    return explanation_of(found, job_reasons(found, [], []))


def seconds_until(scheduler: Scheduler, name: str) -> float:
    """Return after how long a worker has a job that looks ten times a second."""
    start = scheduler.client.now
    while name not in scheduler.names():
        scheduler.client.now += 0.1
        assert scheduler.client.now < start + 1_000
    return float(scheduler.client.now - start)


@pytest.mark.parametrize(("others", "jobs"), [(0, 0), (7, 1), (7, 10), (7, 30)])
def test_a_job_behind_other_tenants_is_told_when_it_will_leave(scheduler, others, jobs):
    """Of each other tenant one job goes for each of its own tenant's, as long as there are some."""
    for tenant in range(others):
        for number in range(jobs):
            scheduler.put(budget(), BATCH, f"{tenant}-{number}", tenant=f"tenant-{tenant}")
    for number in range(10):
        scheduler.put(budget(), BATCH, f"mine-{number}", tenant="me")

    told = explained(scheduler, "mine-9")
    assert told["position"] == 10 + others * min(jobs, 9)
    assert told["of"] == 10 + others * jobs
    assert told["expected_s"] == pytest.approx(seconds_until(scheduler, "mine-9"), rel=0.1, abs=others + 1)


def test_nobody_knows_when_a_job_leaves_whose_budget_has_no_limit(scheduler):
    """No number is made up."""
    for number in range(100):
        scheduler.put(budget(rpm=None), BATCH, f"job-{number}")
    scheduler.client.now += 1

    assert explained(scheduler, "job-99")["expected_s"] is None


def test_each_job_is_told_what_it_waits_for_however_many_models_there_are(scheduler):
    """Of many models a claim looks at some; a job is told of its own."""
    for number in range(200):
        scheduler.put(budget(f"m{number}"), BATCH, f"first-{number}")
        scheduler.put(budget(f"m{number}"), BATCH, f"second-{number}")
    first = 0
    while first < 200:
        first += len(scheduler.claim(1_000))

    told = {explained(scheduler, f"second-{number}")["waiting_for"] is None for number in range(200)}
    assert told == {False}


def test_the_lanes_heads_are_explained_in_one_walk(client):
    """Eight times as many models take about eight times as long, not 64 times."""
    scheduler, costs = Scheduler(client), []
    for models in (4, 32):
        for lane in LANES:
            for number in range(models):
                scheduler.put(budget(f"m{number}"), lane)
        costs.append(least_us(client))

    few, many = costs
    assert many < 16 * few


def least_us(client: Redis) -> float:
    """Return what the server spends on explaining all lanes, the least of some rounds."""
    costs = []
    for _ in range(10):
        EXPLAIN.run(client, (), explain_arguments("", LANES))
        client.config_resetstat()
        EXPLAIN.run(client, (), explain_arguments("", LANES))
        costs.append(client.info("commandstats")["cmdstat_evalsha"]["usec"])
    return min(costs)

"""What a job costs the server, whatever the job says or leaves out, and however large it is."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pytest
from kit.clock import ClockedRedis
from kit.scheduler import REQUEST, Scheduler
from kit.script_client import ScriptClient
from redis import Redis

from celery_app.budget import Budget
from celery_app.lanes import BATCH, LANES
from celery_app.metrics.shortage import explain_arguments
from celery_app.routing import COST, DEADLINE_AT, MODEL, SUBMITTED_AT, TENANT
from celery_app.scheduler.scripts import EXPLAIN
from celery_app.settings import Limits

#: As large as README's own example sends them.
TEXT = "a word, " * 1_000

#: Rounds of the same, against a busy machine's noise.
ROUNDS = 20


def server_us(client: Redis) -> float:
    """Return the microseconds that the server has spent on scripts."""
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("usec", 0) for name in ("eval", "evalsha"))


def cost_of_a_job(app: Any, client: Redis, headers: dict[str, Any], text: str = TEXT) -> float:
    """Return what the server spends on publishing, claiming, returning and acknowledging a job with these headers.

    For each step it is the least of some rounds: a busy machine takes the processor away in the midst of a script.
    """
    scripts, held = ScriptClient(client), []

    def publish() -> None:
        app.send_task("kit.job", (text,), queue="batch", ignore_result=True, headers=headers)

    def claim() -> None:
        held.extend(scripts.claim())

    def requeue() -> None:
        assert scripts.requeue(held.pop()) == 1

    def ack() -> None:
        assert scripts.ack(held.pop()) == 1

    costs: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for step in (publish, claim, requeue, claim, ack):
            before = server_us(client)
            step()
            costs.setdefault(step.__name__, []).append(server_us(client) - before)
    return sum(map(min, costs.values()))


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="nothing"),
        pytest.param({MODEL: "m" * 100_000}, id="long-model"),
        pytest.param({"note": f'"{MODEL}": "x", ' * 1_000}, id="repeated"),
        pytest.param({MODEL: 7, TENANT: [], COST: {}, SUBMITTED_AT: "x", DEADLINE_AT: "x"}, id="nonsense"),
    ],
)
def test_what_a_job_says_or_leaves_out_costs_the_server_nothing(lanes_app, client, headers):
    """No script looks for a field in a text: a job without a model costs what one with a model costs."""
    with_model = cost_of_a_job(lanes_app, client, {MODEL: "claude-haiku-4-5"})
    assert cost_of_a_job(lanes_app, client, headers) < 2 * with_model


def test_a_large_job_costs_the_scripts_what_a_small_one_costs(lanes_app, client):
    """Scripts move ids, not texts: 3 MB go beside them, however often the job is claimed and comes back."""
    small = cost_of_a_job(lanes_app, client, {}, text="x")
    assert cost_of_a_job(lanes_app, client, {}, text="x" * 3_000_000) < 3 * small


@pytest.mark.parametrize("others", [{"tenants": 2_000}, {"jobs": 5_000}], ids=["tenants", "jobs"])
def test_a_claim_costs_the_same_however_many_wait(lanes_app, client, others):
    """A claim looks at heads of lines: neither thousands of tenants nor thousands of jobs make it longer."""
    few = cost_of_a_claim(lanes_app, client, tenants=1, jobs=1)
    client.flushdb()
    assert cost_of_a_claim(lanes_app, client, **{"tenants": 1, "jobs": 1, **others}) < 2 * few


#: One call a minute: all others wait.
FEW = Budget("key:m", "m", Limits(rpm=1), LANES, sharers=("batch",))


def ask(scheduler: Scheduler, number: int) -> bool:
    """Ask for a call that will ask again; say whether it may leave."""
    claim = (f"call-{number}", "slots:call")
    return FEW.reserve(scheduler.client, BATCH, REQUEST, claim=claim, waits=True).granted


def test_waiting_in_a_slot_costs_the_same_however_many_wait(client):
    """A thousand calls that wait for a budget slow down neither each other nor a worker's claim."""
    scheduler, costs = Scheduler(ClockedRedis(client)), []
    assert ask(scheduler, 0)
    for last in (50, 1_000):
        for number in range(1, last + 1):
            assert not ask(scheduler, number)
        costs.append([least_us(client, partial(ask, scheduler, last)), least_us(client, scheduler.claim)])

    (few_ask, few_claim), (many_ask, many_claim) = costs
    assert many_ask < 2 * few_ask
    assert many_claim < 2 * few_claim


def test_counting_a_lanes_jobs_costs_the_same_however_many_lines_it_has(client):
    """The oldest job is looked for in some lines only."""
    scheduler, costs = Scheduler(client), []
    for models, tenants in ((1, 32), (8, 60)):
        for model, tenant in product(range(models), range(tenants)):
            scheduler.put(replace(FEW, model=f"m{model}"), BATCH, tenant=f"tenant-{tenant}")
        costs.append(least_us(client, lambda: ScriptClient(client).places("batch")))

    few, many = costs
    assert many < 3 * few


def test_a_forecast_reads_few_jobs_of_many_models(client):
    """Some jobs of each model are read to know what it costs: of many models, few each."""
    scheduler, reads = Scheduler(client), []
    for models in (1, 12):
        for lane, model, _ in product(LANES, range(models), range(20)):
            last = scheduler.put(replace(FEW, model=f"m{model}"), lane)
        arguments = explain_arguments("", LANES, last, [1.0] * len(LANES))
        client.config_resetstat()
        (row,) = EXPLAIN.run(client, (), arguments)
        assert row[1] == b"queued"
        reads.append(client.info("commandstats")["cmdstat_hget"]["calls"])

    few, many = reads
    assert many < 4 * few  # 12 times as many models; of each lane's, the head is read, too


def test_purging_a_lane_blocks_the_server_no_longer_however_many_jobs_of_others_wait(lanes_app, client):
    """What is scheduled is looked through in pieces."""
    costs, put = [], 0
    with lanes_app.connection_for_write() as connection:
        connection.default_channel.queue_purge("batch")  # the server knows the script from then on
    for others in (500, 8_000):
        with lanes_app.producer_or_acquire() as producer, producer.batch():
            options: dict[str, Any] = {"ignore_result": True, "producer": producer, "countdown": 600}
            for _ in range(others - put):
                lanes_app.send_task("kit.job", queue="normal", **options)
            for _ in range(3):
                lanes_app.send_task("kit.job", queue="batch", **options)
        put = others
        client.config_resetstat()
        with lanes_app.connection_for_write() as connection:
            assert connection.default_channel.queue_purge("batch") == 3
        costs.append(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])

    few, many = costs
    assert many < 6 * few  # 16 times as many
    assert client.zcard("lanes:scheduled") == put


def least_us(client: Redis, action: Callable[[], Any]) -> float:
    """Return what the server spends on an action, the least of some rounds."""
    costs = []
    for _ in range(ROUNDS):
        before = server_us(client)
        action()
        costs.append(server_us(client) - before)
    return min(costs)


def cost_of_a_claim(app: Any, client: Redis, tenants: int, jobs: int) -> float:
    """Return what the server spends on claiming a job, where so many tenants have so many jobs each."""
    scripts = ScriptClient(client)
    with app.producer_or_acquire() as producer, producer.batch():
        for tenant in range(tenants):
            for _ in range(max(jobs, ROUNDS if tenants == 1 else 1)):
                headers = {MODEL: "m", TENANT: f"tenant-{tenant}"}
                app.send_task("kit.job", queue="batch", ignore_result=True, headers=headers, producer=producer)
    return least_us(client, lambda: scripts.claim()[0])

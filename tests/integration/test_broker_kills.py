from typing import Any

import pytest
from kit import kills
from kit.broker import Broker
from kit.script_client import MAX_DEATHS
from kit.server import Server
from kit.waiting import wait_until

#: The long run's numbers are in tests/acceptance/test_broker_proofs.py; here leases last 2 s instead of 15.
PLAN = kills.Plan(jobs=1_500, kills=3, pause=(0.5, 1.0), slots=10, app="kit.hasty", patience=15.0)

IN_TIME_S = 60.0
SLOTS = 8


@pytest.fixture
def broker(tmp_path, broker_url):
    """An empty broker."""
    with Broker(tmp_path, broker_url) as broker:
        yield broker


@pytest.mark.timeout(200)
@pytest.mark.slow
def test_no_job_is_lost_when_workers_are_killed(tmp_path, valkey):
    """Workers under load are killed in turn: every job ends, and those of a killed worker start again."""
    with Server(tmp_path / "server", durable=False) as server, Broker(tmp_path, server.url, valkey.url(15)) as broker:
        outcome = kills.run(broker, PLAN)
        print(outcome)  # noqa: T201 - shown when it fails
        assert outcome.lost == []
        assert outcome.never_back == 0
        assert outcome.dead == 0
        assert outcome.in_flight_killed > 0


def suspects(broker: Broker, count: int) -> list[str]:
    """Have two processes die with some jobs in hand, and return them: after the first they are back all at once."""
    names = [f"suspect-{n}" for n in range(count)]
    for name in names:
        broker.send("kit.job", name, task_id=name, ignore_result=True)
    assert broker.scripts().names(count) == names
    reaped(broker)
    assert broker.scripts().names(count, lease_ms=0) == names
    return names


def reaped(broker: Broker) -> None:
    """Have the leases of dead processes end, by somebody who takes nothing."""
    nobody = broker.scripts()
    wait_until(lambda: not nobody.names(queues=("critical",), lease_ms=1) and not broker.in_flight(), "back", IN_TIME_S)


def test_a_process_gets_one_suspect_at_a_time_and_works_on_beside_it(broker):
    """What two dead processes held is handed to each process one by one; fresh jobs fill its other slots meanwhile."""
    names, fresh = suspects(broker, 4), [f"fresh-{n}" for n in range(6)]
    for name in fresh:
        broker.send("kit.job", name, task_id=name, ignore_result=True)
    reaped(broker)
    one, other = broker.scripts(), broker.scripts()
    held = one.claim(3, lease_ms=0)
    assert [each.name for each in held] == [names[0], *fresh[:2]]
    assert other.names(2, lease_ms=0) == [names[1], fresh[2]]
    assert one.names(1, lease_ms=0, has_suspect=True) == [fresh[3]]
    one.ack(held[0])
    assert broker.client.exists("lanes:bell:batch"), "whoever waits for its end hears of it"
    assert one.names(1, lease_ms=0) == [names[2]]


@pytest.mark.timeout(200)
def test_killers_alone_are_dead_lettered(broker):
    """Two jobs that take their worker along each time are dead-lettered, and all that runs beside them is done."""
    killers, others = ["killer-0", "killer-1"], [f"job-{n}" for n in range(60)]
    for n, name in enumerate(others):
        if n % 30 == 10:
            broker.send("kit.killer", killers[n // 30], 100, task_id=killers[n // 30], ignore_result=True)
        broker.send("kit.job", name, 0.1, task_id=name, ignore_result=True)
    running = {name: start(broker, name) for name in ("a-0", "b-0")}
    deaths = 0

    def over() -> bool:
        nonlocal deaths
        for name, worker in list(running.items()):
            if worker.process.poll() is not None:
                deaths += 1
                del running[name]
                successor = f"{name.partition('-')[0]}-{deaths}"
                running[successor] = start(broker, successor)
        return len(broker.scripts().dead()) == len(killers) and broker.event_log.done() == len(others)

    wait_until(over, "killers are dead-lettered, all others are done", 3 * IN_TIME_S)
    assert sorted(broker.scripts().dead()) == killers
    assert sorted(set(broker.event_log.jobs("end"))) == sorted(others)
    starts = broker.event_log.counts("start")
    # The first two deaths are laid on nobody; another killer in the same process may have been the cause of a third.
    assert all(MAX_DEATHS < starts[name] <= MAX_DEATHS + 3 for name in killers)


def start(broker: Broker, name: str) -> Any:
    """Start a worker whose leases last 2 s; it may be killed before it says that it is ready."""
    return broker.starting(name, slots=SLOTS, app="kit.hasty", queues="batch")

"""A fleet of workers under load whose members are killed again and again, and what became of the jobs."""

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from kit.broker import Broker
from kit.waiting import wait_until
from kit.worker import Worker

#: Jobs queued while the killing goes on: no worker may ever be idle.
BACKLOG = 2_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run goes.

    Attributes:
        jobs: published at least; more if the kills take longer.
        kills: of workers, one every `pause` seconds.
        pause: seconds, shortest and longest.
        fleet: workers alive at a time.
        slots: of each worker.
        seconds: that a job takes, shortest and longest.
        app: of the workers.
        patience: seconds without any job ending after which the rest counts as lost.
        broker_kills: of the broker itself, spread over the run.
    """

    jobs: int
    kills: int
    pause: tuple[float, float] = (1.0, 2.0)
    fleet: int = 3
    slots: int = 20
    seconds: tuple[float, float] = (0.005, 0.05)
    app: str = "kit.project"
    patience: float = 25.0
    broker_kills: int = 0


@dataclass(slots=True)
class KillsReport:
    """What became of the jobs.

    Attributes:
        published: jobs in all.
        lost: that never ended.
        dead: dead letters.
        again: started more than once.
        killed: workers, each with the time of its death and how many jobs it was running.
        back_s: seconds from each death to the next start of each of its jobs.
        seconds: of the whole run.
    """

    published: int = 0
    lost: list[str] = field(default_factory=list)
    dead: int = 0
    again: int = 0
    killed: dict[str, float] = field(default_factory=dict)
    in_flight_killed: int = 0
    back_s: list[float] = field(default_factory=list)
    never_back: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        worst = max(self.back_s, default=0.0)
        return (
            f"{self.published} jobs, {len(self.killed)} kills with {self.in_flight_killed} jobs running: "
            f"lost {len(self.lost)}, "
            f"dead letters {self.dead}, started more than once {self.again}; back after {worst:.1f} s at worst, "
            f"never {self.never_back}; {self.seconds:.0f} s"
        )


class Fleet:
    """The workers; each successor has a name of its own."""

    def __init__(self, broker: Broker, plan: Plan) -> None:
        self._broker, self._plan = broker, plan
        self._numbers = itertools.count()
        self.alive = [self._start() for _ in range(plan.fleet)]
        self.killed: dict[str, float] = {}

    def _start(self) -> Worker:
        plan = self._plan
        return Worker(
            self._broker.folder,
            f"w{next(self._numbers)}",
            broker_url=self._broker.broker_url,
            event_log_url=self._broker.event_log_url,
            app=plan.app,
            slots=plan.slots,
            queues="batch",
        )

    def kill_one(self) -> None:
        """Kill the worker that has been ready for the longest and start its successor."""
        worker = self.alive.pop(0)
        worker.wait_until_ready()
        worker.kill()
        self.killed[worker.name] = time.time()
        self.alive.append(self._start())

    def end(self) -> None:
        """Kill all."""
        for worker in self.alive:
            worker.kill()


def run(broker: Broker, plan: Plan, kill_broker: Callable[[], None] | None = None) -> KillsReport:
    """Publish, kill, wait for what can still end, and account for every job."""
    start, published = time.monotonic(), 0
    fleet = Fleet(broker, plan)
    broker_deaths = {round(plan.kills * (n + 1) / (plan.broker_kills + 1)) for n in range(plan.broker_kills)}
    try:
        for worker in list(fleet.alive):
            worker.wait_until_ready()
        for n in range(plan.kills):
            published = _publish(broker, plan, published, plan.jobs * (n + 1) // plan.kills)
            time.sleep(random.uniform(*plan.pause))
            fleet.kill_one()
            if kill_broker and n + 1 in broker_deaths:
                kill_broker()
                # A publish batch does not reconnect by itself; a single job does.
                broker.send("kit.nothing", ignore_result=True)
        _wait_for_the_end(broker, plan, published)
    finally:
        fleet.end()
    outcome = _report(broker, published, fleet.killed)
    outcome.seconds = time.monotonic() - start
    return outcome


def _publish(broker: Broker, plan: Plan, published: int, wanted: int) -> int:
    waiting = published - broker.event_log.done()
    wanted = max(wanted, published + BACKLOG - waiting)
    with broker.app.producer_or_acquire() as producer, producer.batch():
        for n in range(published, wanted):
            seconds = random.uniform(*plan.seconds)
            broker.send("kit.job", n, seconds, producer=producer, ignore_result=True)
    return wanted


def _wait_for_the_end(broker: Broker, plan: Plan, published: int) -> None:
    done, since = 0, time.monotonic()
    while done < published and time.monotonic() - since < plan.patience:
        now = broker.event_log.done()
        if now > done:
            done, since = now, time.monotonic()
        time.sleep(0.1)
    if done == published:
        wait_until(lambda: broker.in_flight() == 0, "every job is acked", plan.patience)


def _report(broker: Broker, published: int, killed: dict[str, float]) -> KillsReport:
    ended = set(broker.event_log.jobs("end"))
    starts, ends = broker.event_log.by_job("start"), broker.event_log.read("end")
    finished = {(entry.job, entry.worker) for entry in ends}
    outcome = KillsReport(published=published, killed=killed, dead=int(broker.client.zcard("lanes:dead")))
    outcome.lost = [str(n) for n in range(published) if str(n) not in ended]
    outcome.again = sum(count > 1 for count in Counter({job: len(lines) for job, lines in starts.items()}).values())
    for job, lines in starts.items():
        for line in lines:
            if line.worker in killed and (job, line.worker) not in finished:
                outcome.in_flight_killed += 1
                died = killed[line.worker]
                later = [other.at for other in lines if other.at > line.at and other.worker != line.worker]
                if later:
                    outcome.back_s.append(min(later) - died)
                else:
                    outcome.never_back += 1
    return outcome

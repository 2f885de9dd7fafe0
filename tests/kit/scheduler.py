"""Lanes with jobs of known costs, which go in and come out by the scheduler's own scripts."""

import itertools
import json
import time
from typing import Any

from celery_app.broker.packet import Packet, cost_header
from celery_app.budget import Budget, CallEnd, CallOutcome, Cost, Usage
from celery_app.jobs.headers import BATCH_HEADER
from celery_app.lanes import LANES, Lane
from celery_app.routing import CAP, COST, DEADLINE_AT, MODEL, PREFIX, SUBMITTED_AT, TENANT
from celery_app.scheduler.scripts import PUBLISH
from kit.clock import ClockedRedis
from kit.script_client import LANES as NAMES, Held, ScriptClient

#: Lua has no infinity for a number of milliseconds.
_LONGEST_MS = 3_600_000

#: Unless a test says otherwise, a job costs one request.
REQUEST = Cost(output_tokens=0)


class Scheduler:
    """Jobs that draw on budgets, and workers that claim them.

    Attributes:
        client: a `ClockedRedis`, or a real client.
        scripts: of the worker that claims where none is named.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.raw = client.client if isinstance(client, ClockedRedis) else client
        self.scripts = self.worker()
        self._written: set[tuple[str, str]] = set()
        self._numbers = itertools.count()

    def worker(self) -> ScriptClient:
        """Return the scripts of one more worker, which serves all lanes."""
        return ScriptClient(self.client)

    def put(
        self,
        budget: Budget,
        lane: Lane,
        name: str = "",
        cost: Cost = REQUEST,
        *,
        age: float = 0.0,
        left: float | None = None,
        tenant: str = "",
        prefix: str = "",
        batch: tuple[str, int] = ("", 0),
    ) -> str:
        """Put a job into a lane; return its name.

        Args:
            budget: that it draws on.
            lane: where it waits.
            name: the job's; empty: one of its own.
            cost: what it says that it costs.
            age: seconds since its submission.
            left: seconds until its deadline; None: it has none.
            tenant: whose it is.
            prefix: the marked beginning of its prompt, as `prefix_of` has it; empty: its lane does not ask.
            batch: the id of its batch, and what that may cost in nanodollars; 0: whatever it does.
        """
        name = name or f"job-{next(self._numbers)}"
        self.know(budget, lane)
        now = time.time()  # from it, a packet makes durations
        headers = {"id": name, MODEL: budget.model, TENANT: tenant, COST: cost_header(cost), SUBMITTED_AT: now - age}
        headers |= {BATCH_HEADER: batch[0], CAP: batch[1], PREFIX: prefix}
        headers[DEADLINE_AT] = None if left is None else now + left
        text = json.dumps({"headers": {"id": name}}).encode()
        packet = Packet(name, text, lane.priority, headers, "", 0.0)
        PUBLISH.run(self.client, (), packet.submission("", lane.name))
        return name

    def know(self, budget: Budget, lane: Lane) -> None:
        """Write down which budget a lane's jobs of a model draw on, as a worker does when it is asked to."""
        if (lane.name, budget.terms) not in self._written:
            self._written.add((lane.name, budget.terms))
            self.raw.hset("lanes:terms", f"{lane.name}:{budget.model}", budget.terms)

    def wait_beside(self, seconds: float, scripts: ScriptClient | None = None) -> None:
        """Let time pass beside a worker, which gives a sign of life every 3 s and sees to what others left."""
        scripts = scripts or self.worker()
        while seconds > 0:
            self.client.now += min(seconds, 3)
            scripts.extend()
            seconds -= 3

    def claim(
        self, most: int = 1, scripts: ScriptClient | None = None, lanes: tuple[Lane, ...] = LANES, **options: Any
    ) -> Any:
        """Claim jobs; the worker may sleep for as long as it is told."""
        scripts = scripts or self.scripts
        return scripts.claim(
            most, **{"lease_ms": 0, "sleep_ms": _LONGEST_MS, "lanes": lanes, "queues": NAMES, **options}
        )

    def names(self, most: int = 1_000, **options: Any) -> list[str]:
        """Claim jobs and return their names."""
        return [held.name for held in self.claim(most, **options)]

    def wait_s(self, scripts: ScriptClient | None = None) -> float:
        """Return for how many seconds the last claim told its worker to wait, at most 1 ms too many."""
        return (scripts or self.scripts).look_ms / 1000

    def settle(
        self,
        budget: Budget,
        held: Held,
        usage: Usage | None = None,
        outcome: CallOutcome = "answered",
        headers: dict[str, str] | None = None,
        prefix: str = "",
    ) -> bool:
        """Settle a job's call; the job is still held."""
        return budget.settle(self.client, held.job.ticket, CallEnd(usage, headers, outcome, prefix=prefix)).known

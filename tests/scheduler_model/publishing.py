"""What publishers do."""

import itertools
import json
import time
from dataclasses import dataclass
from typing import Any

from kit.script_client import LANES as NAMES
from redis import Redis

from celery_app.broker.packet import Packet, cost_header
from celery_app.budget import Cost
from celery_app.jobs.headers import BATCH_HEADER
from celery_app.routing import CAP, COST, DEADLINE_AT, MODEL, PREFIX, SUBMITTED_AT, TENANT, UNIQUE
from celery_app.scheduler.scripts import PUBLISH, PUBLISH_MANY
from scheduler_model.ground import BEGINNINGS, KEPT_S, MOST_JOBS, Ground, task_id_of

#: Units of money that each call costs, and that each batch may.
COSTS, BATCH_MAY = 10, 25

_TENANTS, _MODELS = ("", "ann", "bob"), ("m", "", "n", "m")


@dataclass(frozen=True)
class Submission:
    """What a publisher sent, and may send again."""

    lane: str
    token: str
    arguments: tuple[Any, ...]
    id: str


class Publishing(Ground):
    """Jobs come in, once, however often they are sent."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.sent: list[Submission] = []
        self.published: set[str] = set()
        self._numbers = itertools.count()

    def publish(self, lane: int, tenant: int, model: int, delay: int, left: int, unique: int) -> None:
        """A job comes in, unless the world is full of them."""
        if len(self.seen.jobs) >= MOST_JOBS:
            return
        number = next(self._numbers)
        repeated = self._any(number) if unique % 6 == 2 else None  # as a task that replaces or repeats itself does
        entry = self._packet(task_id_of(repeated or f"job-{number}"), tenant, model, delay, left, unique)
        submission = Submission(NAMES[lane % len(NAMES)], f"token-{number}", tuple(entry.arguments()), entry.id)
        self.sent = [*self.sent[-7:], submission]
        self._send(submission)

    def publish_again(self, which: int) -> None:
        """A publisher heard no answer and repeats itself: a job that is there, or was, does not come again."""
        if self.sent:
            self._send(self.sent[which % len(self.sent)])

    def publish_many(self, lane: int, jobs: int, times: int) -> None:
        """A piece of a batch comes in, and perhaps again."""
        jobs = 1 + jobs % 3
        if len(self.seen.jobs) + jobs > MOST_JOBS:
            return
        number = next(self._numbers)
        entries = [self._packet(f"batch{number}-{i}", i, 0, 0, 0, 0, cap=number) for i in range(jobs)]
        self.purse.caps[f"batch|batch{number}"] = BATCH_MAY
        parts = [part for entry in entries for part in entry.arguments()]
        arguments = ("", NAMES[lane % len(NAMES)], 1_000, f"lanes:batch:{number}", KEPT_S, 0, *parts)
        for again in range(1 + times % 2):
            PUBLISH_MANY.run(self.client, (), arguments)
            self._look(comes=None if again else f"batch{number}", many=jobs)

    def _packet(
        self, name: str, tenant: int, model: int, delay: int, left: int, unique: int, cap: int | None = None
    ) -> Packet:
        now = time.time()
        headers: dict[str, Any] = {
            "id": name,
            MODEL: (name_of_model := _MODELS[model % len(_MODELS)]),
            TENANT: _TENANTS[tenant % len(_TENANTS)],
            COST: cost_header(Cost(output_tokens=0, usd=COSTS)) if name_of_model else None,
            PREFIX: BEGINNINGS[unique // 6 % len(BEGINNINGS)] if name_of_model else None,
            SUBMITTED_AT: now,
            DEADLINE_AT: now + 5 * (left % 4) if left % 4 else None,
        }
        if cap is not None:
            headers |= {BATCH_HEADER: f"batch{cap}", CAP: BATCH_MAY}
        if unique % 6 == 1:
            headers[UNIQUE] = "the only one"
        text = json.dumps({"headers": {"id": name}}).encode()
        return Packet(name, text, 0, headers, "", now + 2 * (delay % 4 - 1) if delay % 4 > 1 else 0.0)

    def _send(self, submission: Submission) -> None:
        fixed = ("", submission.lane, -1, submission.token, 300, "", 0, "", "")
        (word, *_) = PUBLISH.run(self.client, (), (*fixed, *submission.arguments))
        before = self.seen.jobs.keys()
        is_new = submission.token not in self.published
        self._look(comes=submission.id if is_new else None)
        assert word in {0, 2}, word
        if word == 0:
            self.published.add(submission.token)
            assert not is_new or len(self.seen.jobs) == len(before) + 1, "it says that the job is there"

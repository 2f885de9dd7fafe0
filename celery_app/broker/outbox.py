"""The way into the broker: one job with its limit, or a batch of them."""

from __future__ import annotations

import random
import time
from typing import Any

import redis
from kombu.exceptions import BatchPublishError
from kombu.transport.redis import PublishBatch
from kombu.utils.json import dumps

from celery_app.broker.inbox import take_not_before
from celery_app.broker.verbs import PUT
from celery_app.errors import JobTooLarge, LaneFull
from celery_app.job_keys import STREAM, STREAM_KEPT_QUEUED, STREAM_TASK
from celery_app.room import wait_for_room

#: Headers that the scripts read; they do so from properties of the same names.
SCRIPTS_READ = ("lanes_model", "submitted_at")

#: Bytes that a job may have: the API takes requests of 32 MB, of which kombu's base64 makes a third more.
MAX_MESSAGE_BYTES = 44 * 1024 * 1024

#: What the script answers when the job is in its place.
IN_PLACE = -1

#: Seconds between two tries to get into a full lane: doubling, so that a short wait ends soon and a long one is cheap.
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1


class Outbox:
    """One job on its way into a queue."""

    def __init__(self, channel: Any, queue: str, message: dict[str, Any]) -> None:
        """Prepare the script's arguments.

        Raises:
            JobTooLarge: nothing has been written.
        """
        prefix, steps = channel.global_keyprefix, channel.priority_steps
        lane = channel.lane(queue)
        step = channel.priority(channel._get_message_priority(message))
        tag = message["properties"]["delivery_tag"]
        headers = message.get("headers") or {}
        not_before = take_not_before(message) if lane else 0
        if not_before:
            _count_from(headers, not_before / 1000)
        for name in SCRIPTS_READ:
            if name in headers:
                # The last properties of all: scripts find them there behind headers of any size and content.
                message["properties"][name] = headers[name]
        self.queue = queue
        self.capacity: int = lane.capacity if lane else -1
        self.submit_wait: float = lane.submit_wait if lane else 0.0
        self._keys = [prefix + channel._q_for_pri(queue, each) for each in steps]
        expires = channel._expires.get(queue, 0)
        index = steps.index(step) + 1
        text = dumps(message)
        if lane and len(text) > MAX_MESSAGE_BYTES:
            raise JobTooLarge(size=len(text), most=MAX_MESSAGE_BYTES)  # no worker would take it
        stream = f"{prefix}{STREAM}{headers['id']}" if lane and headers.get("task") == STREAM_TASK else ""
        limits = (index, self.capacity, expires, not_before)
        self._arguments = (prefix, queue, *limits, tag, text, stream, STREAM_KEPT_QUEUED)

    def put(self, client: redis.Redis) -> None:
        """Put the job into its queue, waiting for room no longer than `wait_for_room` says.

        Raises:
            LaneFull: nothing has been written.
        """
        self.wait_for_room(lambda: int(PUT.run(client, self._keys, self._arguments)))

    def add_to(self, pipeline: Any) -> None:
        """Add the job to a pipeline of a server that knows the script."""
        pipeline.evalsha(PUT.sha, len(self._keys), *self._keys, *self._arguments)

    def wait_for_room(self, put: Any) -> None:
        """Repeat `put` until the job is in its place or the patience is over."""
        start, pause, wait = time.monotonic(), FIRST_PAUSE, wait_for_room(self.submit_wait)
        while (depth := put()) != IN_PLACE:
            waited = time.monotonic() - start
            if waited >= wait:
                raise LaneFull(lane=self.queue, depth=depth, capacity=self.capacity, waited=waited)
            # Jitter keeps a crowd of publishers from coming back all at once.
            time.sleep(min(pause * random.uniform(0.5, 1), wait - waited))
            pause = min(pause * 2, LONGEST_PAUSE)


def _count_from(headers: dict[str, Any], when: float) -> None:
    """Count waits and the deadline of a job with an ETA from then on: it was not meant to start before."""
    late = when - headers.get("submitted_at", when)
    if late > 0:
        headers["submitted_at"] = when
        if headers.get("deadline_at") is not None:
            headers["deadline_at"] += late


class LanePublishBatch(PublishBatch):
    """A pipeline of jobs; those that found their lane full go again, one by one, and wait for room."""

    def __init__(self, channel: Any, max_size: int) -> None:
        """Start with nothing."""
        super().__init__(channel, max_size)
        self._jobs: list[Outbox] = []

    def add_job(self, job: Outbox) -> None:
        """Add one job; it is put into its queue with the next flush."""
        self._jobs.append(job)

    def publish(self, message: Any, **kwargs: Any) -> Any:
        """Route one prepared message, and flush when the batch is full."""
        result = super().publish(message, **kwargs)
        if len(self._jobs) >= self.max_size:
            self.flush()
        return result

    def flush(self) -> None:
        """Send everything; a connection that breaks meanwhile leaves the delivery of this batch uncertain.

        Raises:
            LaneFull: the jobs before are in their places; this one and those behind it in its lane are not.
            kombu.exceptions.BatchPublishError: it is not known which jobs are in their places.
        """
        super().flush()
        jobs, self._jobs = self._jobs, []
        if not jobs:
            return
        client = self.channel._plain_client()
        try:
            answers = self._send(client, jobs)
        except redis.RedisError as exc:
            self._failed = exc
            raise BatchPublishError("Redis publish batch failed; delivery is uncertain") from exc
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Exception):
                raise BatchPublishError("Redis refused a job of the batch") from answer
            if int(answer) != IN_PLACE:
                job.put(client)

    def discard(self) -> None:
        """Discard what has not been sent."""
        self._jobs.clear()
        super().discard()

    def _send(self, client: redis.Redis, jobs: list[Outbox]) -> list[Any]:
        # In one step: room made between two of its jobs would let a later one overtake one that was refused.
        with client.pipeline(transaction=True) as pipeline:
            # With the script ahead of them, the jobs never meet a server that does not know it.
            pipeline.script_load(PUT.source)
            for job in jobs:
                job.add_to(pipeline)
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers[1:]

"""The way into the broker: one job with its limit, or a batch of them."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import redis
from kombu.exceptions import BatchPublishError
from kombu.transport.redis import PublishBatch
from kombu.utils.json import dumps

from celery_app.broker.inbox import take_not_before
from celery_app.broker.verbs import PUT
from celery_app.errors import JobTooLarge, LaneFull
from celery_app.job_keys import PUBLISH_HEADER, PUBLISHED, PUBLISHED_KEPT, STREAM, STREAM_KEPT_QUEUED, STREAM_TASK
from celery_app.publishing import Publishing, publishing_now
from celery_app.room import wait_for_room

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_app.broker.script import Args, Keys, Script

#: Headers that the scripts read; they do so from properties of the same names.
SCRIPTS_READ = ("lanes_model", "submitted_at")

#: Bytes that a job may have: the API takes requests of 32 MB, of which kombu's base64 makes a third more.
MAX_MESSAGE_BYTES = 44 * 1024 * 1024

#: Characters of a submission's token at most: a foreign producer's header may be anything.
LONGEST_TOKEN = 64

#: What the script answers when the job is in its place.
IN_PLACE = -1

#: Seconds between two tries to get into a full lane: doubling, so that a short wait ends soon and a long one is cheap.
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1


class Prepared(NamedTuple):
    """A message as it goes into a lane.

    Attributes:
        message: for the lane; the message that it was made from is as it was.
        not_before: ms since the epoch before which the job must not start; 0: at once.
        token: of the submission; empty where its producer gives none.
    """

    message: dict[str, Any]
    not_before: int
    token: str


def prepared(message: Mapping[str, Any]) -> Prepared:
    """Prepare a message of kombu's for a lane.

    kombu makes a repetition from the same headers, so they have to stay as they are.
    """
    headers, properties = dict(message.get("headers") or {}), dict(message["properties"])
    token = headers.pop(PUBLISH_HEADER, None)
    not_before = take_not_before(headers)
    if not_before:
        _count_from(headers, not_before / 1000)
    # The last properties of all: scripts find them there behind headers of any size and content.
    properties.update({name: headers[name] for name in SCRIPTS_READ if name in headers})
    is_token = isinstance(token, str) and len(token) <= LONGEST_TOKEN
    return Prepared({**message, "headers": headers, "properties": properties}, not_before, token if is_token else "")


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
        message, not_before, token = prepared(message)
        self.queue = queue
        self.capacity: int = lane.capacity if lane else -1
        self.submit_wait: float = lane.submit_wait if lane else 0.0
        self._keys = [prefix + channel._q_for_pri(queue, each) for each in steps]
        expires = channel._expires.get(queue, 0)
        index = steps.index(step) + 1
        text = dumps(message)
        if lane and len(text) > MAX_MESSAGE_BYTES:
            raise JobTooLarge(size=len(text), most=MAX_MESSAGE_BYTES)  # no worker would take it
        # With its queue: an exchange may lead one submission into several.
        published = f"{prefix}{PUBLISHED}{queue}:{token}" if token else ""
        headers = message.get("headers") or {}
        stream = f"{prefix}{STREAM}{headers['id']}" if lane and headers.get("task") == STREAM_TASK else ""
        job = (prefix, queue, index, self.capacity, expires, not_before, tag, text)
        self._arguments = (*job, published, PUBLISHED_KEPT, stream, STREAM_KEPT_QUEUED)

    def put(self, pool: redis.ConnectionPool) -> None:
        """Put the job into its queue, waiting for room no longer than `wait_for_room` says.

        Raises:
            LaneFull: nothing has been written.
        """
        submission = publishing_now()
        self.wait_for_room(lambda: int(ask(pool, submission, PUT, self._keys, self._arguments)))

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


def ask(pool: redis.ConnectionPool, submission: Publishing, script: Script, keys: Keys, arguments: Args) -> Any:
    """Run a script that puts jobs into a lane, and note on the way what is known of them."""
    connection = pool.get_connection()  # connects: of a server that is away, it is known that it has no job
    submission.sent()
    try:
        answer = script.ask(connection, keys, arguments, submission.seconds_left())
    except redis.ResponseError:
        submission.answered()
        raise
    finally:
        pool.release(connection)
    submission.answered()
    return answer


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
                job.put(client.connection_pool)

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

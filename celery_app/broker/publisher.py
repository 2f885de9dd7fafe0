"""The way into the broker: one job with its limit, or a batch of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import redis
from celery import current_task
from kombu.exceptions import BatchPublishError
from kombu.transport.redis import PublishBatch

from celery_app.broker.packet import NO_CAPACITY, Packet, packet_of
from celery_app.errors import LaneDraining, LaneFull
from celery_app.jobs.publishing import Publishing, publishing_now
from celery_app.jobs.room import WaitForRoom
from celery_app.keys import STREAM, STREAM_TASK, UPLOAD, UPLOAD_KEPT
from celery_app.scheduler.scripts import PUBLISH

if TYPE_CHECKING:
    from celery_app.script import Args, Script

#: What the script answers first: the job is in its place, its lane is full, there is such a job already, its lane
#: is drained.
IN_PLACE, FULL, TAKEN, DRAINED = range(4)


class Publisher:
    """One job on its way into a lane."""

    def __init__(self, channel: Any, queue: str, message: dict[str, Any]) -> None:
        """Prepare the script's arguments.

        Raises:
            JobTooLarge: nothing has been written.
        """
        lane = channel.lane(queue)
        self.queue = queue
        self.capacity: int = lane.capacity
        self.submit_wait: float = lane.submit_wait
        self._prefix = channel.global_keyprefix
        self._packet = packet_of(message, channel.priority(channel._get_message_priority(message)))
        announcement = publishing_now().announcement
        self._event = announcement.arguments(channel) if announcement else ("", "")

    def put(self, pool: redis.ConnectionPool) -> None:
        """Put the job into its lane, waiting for room no longer than `wait_for_room` says.

        Raises:
            LaneFull: nothing has been written.
            LaneDraining: likewise.
        """
        upload = Upload.of(self._prefix, self._packet)
        try:
            self._wait_for_room(pool, upload)
        except (LaneFull, LaneDraining):
            if upload is not None:
                upload.drop(pool)
            raise

    def _wait_for_room(self, pool: redis.ConnectionPool, upload: Upload | None) -> None:
        submission = publishing_now()
        wait = WaitForRoom(self.queue, self.submit_wait)
        while True:
            answer = ask(pool, submission, PUBLISH, self._arguments(), upload)
            if not self.is_refused(answer):
                return
            if answer[0] == FULL:
                wait.pause(answer[1], answer[2])

    def add_to(self, pipeline: Any) -> None:
        """Add the job to a pipeline of a server that knows the script."""
        upload = upload_of(self._prefix, self._packet)
        if upload is not None:
            pipeline.set(*upload, ex=UPLOAD_KEPT)
        pipeline.evalsha(PUBLISH.sha, 0, *self._arguments())

    def is_refused(self, answer: Any) -> bool:
        """Say whether the job has to be put once more; note the job that there is already, if the script found one.

        Raises:
            LaneDraining: it must not.
        """
        if answer[0] == TAKEN:
            publishing_now().found(answer[1].decode())
        if answer[0] == DRAINED:
            self._follow(answer[1].decode())
        return answer[0] in {FULL, DRAINED}

    def _follow(self, drainer: str) -> None:
        """Have what follows a job in hand go in all the same: an answer that is paid for would be lost."""
        if not current_task:
            raise LaneDraining(lane=self.queue, by=drainer)
        self.capacity = NO_CAPACITY

    @property
    def has_upload(self) -> bool:
        """Whether `add_to` adds two commands."""
        return self._packet.is_large

    def _arguments(self) -> list[Any]:
        headers = self._packet.headers
        stream = STREAM.of("", headers["id"]) if headers.get("task") == STREAM_TASK else ""
        return self._packet.submission(
            self._prefix, self.queue, self.capacity, token=self._packet.token, stream=stream, event=self._event
        )


def upload_of(prefix: str, packet: Packet) -> tuple[str, bytes] | None:
    """Return the key that a large text waits at and the text, None for one that goes with its job."""
    return (UPLOAD.of(prefix, packet.id), packet.text) if packet.is_large else None


class Upload:
    """A large text on its way beside its job: it is sent once, and again only when Redis would soon forget it."""

    def __init__(self, key: str, text: bytes) -> None:
        self._key, self._text = key, text
        self._due = 0.0

    @classmethod
    def of(cls, prefix: str, packet: Packet) -> Upload | None:
        """Return that of a job, None for one whose text goes with it."""
        found = upload_of(prefix, packet)
        return None if found is None else cls(*found)

    def store(self, connection: Any) -> None:
        """Put the text where its job will take it up."""
        if time.monotonic() >= self._due:
            connection.send_command("SET", self._key, self._text, "EX", UPLOAD_KEPT)
            connection.read_response()
            self._due = time.monotonic() + UPLOAD_KEPT / 2

    def lose(self) -> None:
        """Send it again next time: the connection was lost, and perhaps its server with it."""
        self._due = 0.0

    def drop(self, pool: redis.ConnectionPool) -> None:
        """Take it back: its job is not sent."""
        redis.Redis(connection_pool=pool).unlink(self._key)


def ask(
    pool: redis.ConnectionPool,
    submission: Publishing,
    script: Script,
    arguments: Args,
    upload: Upload | None = None,
) -> Any:
    """Run a script that puts jobs into a lane, and note on the way what is known of them."""
    connection = pool.get_connection()  # connects: of a server that is away, it is known that it has no job
    submission.sent()
    try:
        if upload is not None:
            upload.store(connection)
        answer = script.ask(connection, (), arguments, submission.seconds_left())
    except redis.ResponseError:
        submission.answered()
        raise
    except redis.RedisError:
        if upload is not None:
            upload.lose()
        raise
    finally:
        pool.release(connection)
    submission.answered()
    return answer


class LanePublishBatch(PublishBatch):
    """A pipeline of jobs; those that found their lane full go again, one by one, and wait for room."""

    def __init__(self, channel: Any, max_size: int) -> None:
        super().__init__(channel, max_size)
        self._jobs: list[Publisher] = []

    def add_job(self, job: Publisher) -> None:
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
            LaneDraining: likewise.
            kombu.exceptions.BatchPublishError: it is not known which jobs are in their places.
        """
        super().flush()
        jobs, self._jobs = self._jobs, []
        if not jobs:
            return
        client = self.channel.plain_client
        try:
            answers = self._send(client, jobs)
        except redis.RedisError as exc:
            self._failed = exc
            raise BatchPublishError("Redis publish batch failed; delivery is uncertain") from exc
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Exception):
                raise BatchPublishError("Redis refused a job of the batch") from answer
            if job.is_refused(answer):
                job.put(client.connection_pool)

    def discard(self) -> None:
        """Discard what has not been sent."""
        self._jobs.clear()
        super().discard()

    def _send(self, client: redis.Redis, jobs: list[Publisher]) -> list[Any]:
        # In one step: room made between two of its jobs would let a later one overtake one that was refused.
        with client.pipeline(transaction=True) as pipeline:
            # With the script ahead of them, the jobs never meet a server that does not know it.
            pipeline.script_load(PUBLISH.source)
            for job in jobs:
                job.add_to(pipeline)
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        answered = iter(answers[1:])
        return [[next(answered) for _ in range(1 + job.has_upload)][-1] for job in jobs]

"""Many jobs on their way into a lane."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import redis

from celery_app.broker.packet import MAX_MESSAGE_BYTES, Packet
from celery_app.broker.publisher import Upload, ask
from celery_app.client.batch import Batch
from celery_app.client.chunks import chunks
from celery_app.client.envelope import Envelope
from celery_app.client.item import Names, check_item
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.errors import InvalidItem, LaneDraining, LaneFull, LanesError
from celery_app.jobs.headers import batch_id_of
from celery_app.jobs.publishing import publishing
from celery_app.jobs.room import WaitForRoom, waiting_for_room
from celery_app.keys import BATCH_COUNTS, BATCH_KEPT
from celery_app.scheduler.scripts import PUBLISH_MANY
from celery_app.stand_in import refuse_eager, stand_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from celery_app.lanes import Lane

T = TypeVar("T")

OnInvalid: TypeAlias = Literal["stop", "skip"]

#: Dollars that a batch may cost at most: more is a slip.
MOST_DOLLARS = 1e6

#: Seconds between two reports of progress.
REPORT_EVERY = 0.5


def submit_many(
    app: Any,
    items: Iterable[Any],
    lane: Lane,
    on_invalid: OnInvalid = "stop",
    progress: Callable[[Batch], None] | None = None,
    wait: float | None = None,
    names: Names | None = None,
) -> Batch:
    """Submit many calls; see `Client.submit_many`."""
    refuse_eager(app)
    if names is not None and names.usd is not None and not 0 < names.usd <= MOST_DOLLARS:
        raise ValueError(f"usd has to be a number of dollars above 0, not {names.usd!r}")
    if on_invalid not in {"stop", "skip"}:
        raise ValueError(f"on_invalid must be 'stop' or 'skip', not {on_invalid!r}")
    if on_invalid == "stop" and isinstance(items, Sequence):
        for index, item in enumerate(items):
            check_item(index, item)
    with waiting_for_room(wait):
        standing_in = stand_in()
        if standing_in is not None:
            batch: Batch = standing_in.submit_many(app, items, lane, on_invalid, progress)
            return batch
        return _submit_many(app, items, lane, on_invalid, progress, names or Names())


def _submit_many(
    app: Any,
    items: Iterable[Any],
    lane: Lane,
    on_invalid: OnInvalid,
    progress: Callable[[Batch], None] | None,
    names: Names,
) -> Batch:
    with broker_errors(app):
        submission = Submission(app, lane, progress, names)
    try:
        submission.run(items, on_invalid)
    except LanesError as exc:
        exc.batch_id = submission.batch.id  # type: ignore[attr-defined]
        raise
    return submission.batch


class Submission:
    """One batch while it is submitted."""

    def __init__(self, app: Any, lane: Lane, progress: Callable[[Batch], None] | None, names: Names) -> None:
        self._names = names
        batch_id = uuid.uuid4().hex
        self._app, self._lane, self._client = app, lane, redis_client(app)
        self._key = BATCH_COUNTS.of(key_prefix(app), batch_id)
        self._progress, self._report_at = progress, 0.0
        self._put = 0
        self.batch = Batch(app, batch_id)
        self._note(lane=lane.name, **names.cap)  # first: kombu takes longer to find a broker dead
        self._envelope = Envelope(app, lane, batch_id, names.tenant)

    def run(self, items: Iterable[Any], on_invalid: OnInvalid) -> None:
        """Put all items into the lane: the broker has one chunk while the next is made."""
        with ThreadPoolExecutor(1, thread_name_prefix="submit-many") as sender:
            on_its_way: Future[None] | None = None
            for chunk in chunks(self._packets(items, on_invalid)):
                self._await(on_its_way)
                on_its_way = sender.submit(copy_context().run, self._put_all, chunk)
            self._await(on_its_way)
        self._note(submitted=1, invalid=len(self.batch.invalid))
        self._report(last=True)

    def _await(self, sent: Future[None] | None) -> None:
        """Wait until a chunk is in its place; what is told of the progress is told by the caller's own thread."""
        while sent is not None and not wait([sent], timeout=REPORT_EVERY).done:
            self._report()
        if sent is not None:
            sent.result()
            self._report()

    def _packets(self, items: Iterable[Any], on_invalid: OnInvalid) -> Iterator[Packet]:
        checked = on_invalid == "stop" and isinstance(items, Sequence)
        for index, item in enumerate(items):
            try:
                if not checked:
                    check_item(index, item)
                packet = self._packet(index, item)
            except InvalidItem as exc:
                if on_invalid == "stop":
                    raise
                self.batch.invalid.append(exc)
            else:
                yield packet

    def _packet(self, index: int, item: Any) -> Packet:
        from tasks.request import describe_request

        packet = self._envelope.packet(index, item, describe_request(item), self._names.headers(item))
        if len(packet.text) > MAX_MESSAGE_BYTES:
            problem = f"makes a job of {len(packet.text):,} bytes, the broker takes at most {MAX_MESSAGE_BYTES:,}"
            raise InvalidItem(index=index, path="params", problem=problem)
        return packet

    def _put_all(self, packets: list[Packet]) -> None:
        """Put jobs into the lane, waiting for room as long as it moves."""
        # Large texts come one by one, see `chunks`.
        upload = Upload.of(self._envelope.prefix, packets[0]) if len(packets) == 1 else None
        try:
            self._wait_for_room(packets, upload)
        except (LaneFull, LaneDraining):
            if upload is not None:
                upload.drop(self._client.connection_pool)
            raise

    def _wait_for_room(self, packets: list[Packet], upload: Upload | None) -> None:
        wait = WaitForRoom(self._lane.name, self._lane.submit_wait)
        while packets:
            placed, depth, capacity, drainer = self._put_some(packets, upload)
            self._put += placed
            packets = packets[placed:]
            if placed:
                wait.begin_anew()
            if packets and drainer:
                raise LaneDraining(lane=self._lane.name, by=drainer)
            if packets:
                wait.pause(depth, capacity)

    def _put_some(self, packets: list[Packet], upload: Upload | None) -> tuple[int, int, int, str]:
        """Put what there is room for; return how many are in, the lane's depth and capacity, and who drains it."""
        prefix, pool = self._envelope.prefix, self._client.connection_pool
        head = (prefix, self._lane.name, self._lane.capacity, BATCH_COUNTS.of("", self.batch.id), BATCH_KEPT, self._put)
        with broker_errors(self._app), publishing(self._app.amqp.submit_within) as submission:

            def put() -> Any:
                arguments = (*head, *(part for packet in packets for part in packet.arguments()))
                return ask(pool, submission, PUBLISH_MANY, arguments, upload)

            # The script knows what it has put already, so asking once more does no harm.
            placed, depth, capacity, drainer, *found = _once_more(put)
        for at, task_id in zip(found[::2], found[1::2], strict=True):
            self.batch.found[batch_id_of(packets[at].id)[1]] = task_id.decode()
        return int(placed), int(depth), int(capacity), drainer.decode()

    def _note(self, **fields: str | int) -> None:
        mapping: Any = fields
        with broker_errors(self._app), self._client.pipeline() as pipeline:

            def write() -> None:
                pipeline.hset(self._key, mapping=mapping)
                pipeline.expire(self._key, BATCH_KEPT)
                pipeline.execute()

            _once_more(write)

    def _report(self, *, last: bool = False) -> None:
        if self._progress is not None and (last or time.monotonic() >= self._report_at):
            self._progress(self.batch)
            self._report_at = time.monotonic() + REPORT_EVERY


def _once_more(step: Callable[[], T]) -> T:
    """Do a step that may be repeated; a connection that was lost gets a second try."""
    try:
        return step()
    except (redis.ConnectionError, redis.TimeoutError):
        return step()

"""The batches that were submitted in process."""

from __future__ import annotations

import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from celery.states import REVOKED, SUCCESS

from celery_app.client.batch import Batch
from celery_app.client.item import check_item
from celery_app.client.sending import CREATE_TASK, send
from celery_app.errors import InvalidItem, LanesError
from celery_app.jobs.headers import BATCH_HEADER, batch_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery_app.lanes import Lane
    from celery_app.testing.job import Job

#: How a batch counts its jobs; every other state is a failure.
_COUNTED = {SUCCESS: "done", REVOKED: "cancelled"}


class Batches:
    """What Redis would know of each batch."""

    def __init__(self) -> None:
        self._fields: dict[str, dict[str, int]] = {}
        self._ended: dict[str, list[int]] = defaultdict(list)

    def submit(
        self, app: Any, items: Iterable[Any], lane: Lane, on_invalid: str, progress: Callable[[Batch], None] | None
    ) -> Batch:
        """Submit the jobs of a batch, one by one."""
        batch = Batch(app, uuid.uuid4().hex)
        fields = self._fields[batch.id] = defaultdict(int)
        try:
            for index, item in enumerate(items):
                self._submit(app, batch, lane, index, item, skip=on_invalid == "skip")
        except LanesError as exc:
            exc.batch_id = batch.id  # type: ignore[attr-defined]
            raise
        fields.update(submitted=1, invalid=len(batch.invalid))
        if progress is not None:
            progress(batch)
        return batch

    def _submit(self, app: Any, batch: Batch, lane: Lane, index: int, item: Any, *, skip: bool) -> None:
        try:
            check_item(index, item)
        except InvalidItem as exc:
            if not skip:
                raise
            batch.invalid.append(exc)
            return
        self._fields[batch.id]["queued"] += 1
        try:
            send(app, CREATE_TASK, lane, item, {BATCH_HEADER: batch.id}, task_id=f"{batch.id}-{index}")
        except LanesError:
            self._fields[batch.id]["queued"] -= 1
            raise

    def end(self, job: Job) -> None:
        """Count a job of a batch that has ended."""
        if BATCH_HEADER in job.headers:
            batch_id, index = batch_id_of(job.id)
            self._fields[batch_id][_COUNTED.get(job.state, "failed")] += 1
            self._ended[batch_id].append(index)

    def fields(self, batch_id: str) -> dict[bytes, bytes]:
        """Return what is known of a batch; empty: nothing."""
        return {name.encode(): str(value).encode() for name, value in self._fields.get(batch_id, {}).items()}

    def ended_after(self, batch_id: str, after: str) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        """Return which jobs have ended, behind one of them."""
        seen = int(after)
        ended = self._ended[batch_id][seen:]
        return [(str(n).encode(), {b"i": str(index).encode()}) for n, index in enumerate(ended, seen + 1)]

"""Headers of a job that are the lanes' own business; those of its route are in `celery_app.routing`."""

from __future__ import annotations

from typing import Final

#: Header of a job on its way into a lane: a token of its submission, the same however often publishing is repeated. It
#: is left out of what is queued.
PUBLISH_HEADER: Final = "lanes_publish"

#: Header of a job whose caller waits for it at `celery_app.keys.DONE`.
REPLY_HEADER: Final = "lanes_reply"

#: Header of a job with the id of its batch; the job's own id is ``<batch id>-<index>``.
BATCH_HEADER: Final = "lanes_batch"


def batch_id_of(task_id: str) -> tuple[str, int]:
    """Split the id of a batch's job into the batch's id and the job's index."""
    batch_id, _, index = task_id.rpartition("-")
    return batch_id, int(index)

"""What a job has in Redis besides its message and its result: names, forms and how long each is kept."""

from __future__ import annotations

from typing import Final

#: Set once a job, or a whole batch, is to be cancelled: ``lanes:cancel:<id>``.
CANCEL: Final = "lanes:cancel:"

#: Set once a job has ended by itself: it cannot be cancelled from then on: ``lanes:ended:<id>``.
ENDED: Final = "lanes:ended:"

#: List with the outcome of a job whose caller waits for it: ``lanes:done:<task id>``.
DONE: Final = "lanes:done:"

#: Stream with the events of a job's answer: ``lanes:stream:<task id>``.
STREAM: Final = "lanes:stream:"

#: The task whose job has such a stream. It is there, empty, from the job's submission on.
STREAM_TASK: Final = "tasks.stream_message"

#: Hash with what is known of a batch: ``lanes:batch:<batch id>``; its other keys begin with it.
BATCH: Final = "lanes:batch:"

#: Header of a job on its way into a lane: a token of its submission, the same however often publishing is repeated. It
#: is left out of what is queued.
PUBLISH_HEADER: Final = "lanes_publish"

#: Header of a job whose caller waits at `DONE`.
REPLY_HEADER: Final = "lanes_reply"

#: Header of a job with the id of its batch; the job's own id is ``<batch id>-<index>``.
BATCH_HEADER: Final = "lanes_batch"

#: Seconds that a cancellation is remembered: longer than any backlog that somebody would still work off.
CANCEL_KEPT = 7 * 86_400

#: Seconds that a submission is remembered once its job is in its place. A repetition comes after one or two timeouts of
#: a connection; those of a project that is more patient are a minute or two. At 1,000 jobs/s that makes 40 MB.
PUBLISHED_KEPT = 300

#: Seconds that an end is remembered: until its result is stored. Short, because each job leaves one behind; while a
#: result cannot be stored it is prolonged.
ENDED_KEPT = 60

#: Seconds that an outcome lies ready for a caller who is just about to fetch it; then the result backend has it.
DONE_KEPT = 60

#: Seconds that a stream outlives its end: a reader whose connection broke comes back within seconds, one who closed
#: the laptop within minutes.
STREAM_KEPT = 600

#: Seconds that a stream is kept while its job runs or waits for its next attempt: the longest call of any lane (300 s)
#: and the longest backoff (60 s) many times over.
STREAM_KEPT_RUNNING = 3_600

#: Seconds that a stream is kept while its job waits in its lane: as long as a cancellation.
STREAM_KEPT_QUEUED = CANCEL_KEPT

#: Seconds that a batch is kept after its last job has ended.
BATCH_KEPT = 7 * 86_400

# An entry of a stream has the fields below. One entry carries all events of up to 15 ms.

#: Token of the attempt that wrote the entry: one that went on although its lease was over is told from its successor.
ATTEMPT: Final = b"a"

#: Number of the entry's first event within its attempt, from 0: an entry that was sent twice is read once.
NUMBER: Final = b"n"

#: The events, each a line of JSON.
EVENTS: Final = b"e"

#: In the last entry only: the whole message as JSON, empty where the job failed.
MESSAGE: Final = b"m"


def batch_id_of(task_id: str) -> tuple[str, int]:
    """Split the id of a batch's job into the batch's id and the job's index."""
    batch_id, _, index = task_id.rpartition("-")
    return batch_id, int(index)

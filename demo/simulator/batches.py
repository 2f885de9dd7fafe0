"""/v1/messages/batches: the paths of the Message Batches API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from demo.simulator.faults import SimulatedError, refusal
from demo.simulator.handler import ApiHandler

if TYPE_CHECKING:
    from demo.simulator.batch import Batch

LISTED = "20"  # batches of a page, unless asked for more
LINES_AT_ONCE = 500  # results that are written at a stretch: some 300 kB


class BatchesApiHandler(ApiHandler):
    """A path of the batches API: it has its own rate limit, and its own failures."""

    key: str
    fault: str | None
    verbs: ClassVar[dict[str, str]]  # what each method does, in a word

    def prepare(self) -> None:
        """Refuse what is refused before anything is done."""
        self.key = self.authenticate()
        streaming = self.request.path.endswith("/results")
        self.fault = self.request.headers.get("x-simulate") or self.simulator.behaviour.batch_fault(streaming=streaming)
        if self.fault and (refused := refusal(self.fault, {"messages": []}, self.key, streaming=False)):
            raise refused
        self.desk.admit(self.key)

    def on_finish(self) -> None:
        """Count the call."""
        self.desk.calls[f"{self.verbs.get(self.request.method, '?')} {self.get_status()}"] += 1

    def refuse(self, error: SimulatedError) -> None:
        """Answer with an error, and say when to come again."""
        if error.retry_after is not None and self.simulator.behaviour.headers:
            self.set_header("retry-after", str(error.retry_after))
        super().refuse(error)

    def reply(self, value: Any) -> None:
        """Answer 200 with JSON, unless the call fails now that all has been done."""
        if self.fault == "server_error":
            raise SimulatedError(500, "Simulated 500")
        if self.fault == "drop":
            self.connection.close()
        else:
            super().reply(value)

    def told(self, batch: Batch) -> dict[str, Any]:
        """Give what the API tells of a batch."""
        return batch.told(f"{self.request.protocol}://{self.request.host}")


class BatchesHandler(BatchesApiHandler):
    """All batches of a key."""

    verbs: ClassVar = {"POST": "create", "GET": "list"}

    async def post(self) -> None:
        """Create one."""
        self.reply(self.told(await self.desk.create(self.key, self.request.body)))

    def get(self) -> None:
        """List them by pages."""
        limit = self.get_query_argument("limit", LISTED)
        if not limit.isdecimal():
            raise SimulatedError(400, "limit: has to be a number")
        before, after = (self.get_query_argument(name, None) for name in ("before_id", "after_id"))
        batches, more = self.desk.page(self.key, int(limit), before, after)
        ids: list[str | None] = [batch.id for batch in batches] or [None]
        data = [self.told(batch) for batch in batches]
        self.reply({"data": data, "has_more": more, "first_id": ids[0], "last_id": ids[-1]})


class BatchHandler(BatchesApiHandler):
    """One batch."""

    verbs: ClassVar = {"GET": "retrieve", "DELETE": "delete"}

    def get(self, batch_id: str) -> None:
        """Tell how it stands."""
        self.reply(self.told(self.desk.find(self.key, batch_id)))

    def delete(self, batch_id: str) -> None:
        """Forget it."""
        self.desk.delete(self.desk.find(self.key, batch_id))
        self.reply({"id": batch_id, "type": "message_batch_deleted"})


class CancelHandler(BatchesApiHandler):
    """The end of a batch before its time."""

    verbs: ClassVar = {"POST": "cancel"}

    def post(self, batch_id: str) -> None:
        """Cancel it."""
        batch = self.desk.find(self.key, batch_id)
        batch.cancel()
        self.reply(self.told(batch))


class ResultsHandler(BatchesApiHandler):
    """The results of a batch that has ended."""

    verbs: ClassVar = {"GET": "results"}

    async def get(self, batch_id: str) -> None:
        """Send them, a line for each."""
        batch = self.desk.find(self.key, batch_id)
        if not batch.ended_at:
            raise SimulatedError(404, f"Batch {batch_id} has no available results: it has not ended")
        if self.fault == "server_error":
            raise SimulatedError(500, "Simulated 500")
        lines = batch.lines if self.fault != "drop_mid_stream" else batch.lines[: len(batch.lines) // 2]
        self.set_header("Content-Type", "application/x-jsonl")
        for start in range(0, len(lines), LINES_AT_ONCE):
            self.write(b"".join(lines[start : start + LINES_AT_ONCE]))
            await self.flush()
        if lines is batch.lines:
            self.finish()
        else:
            self.connection.close()

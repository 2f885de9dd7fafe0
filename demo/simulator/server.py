"""The simulated API on a port of 127.0.0.1, in a thread of this process; and how it is looked at and changed."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from tornado.httpserver import HTTPServer
from tornado.web import Application

from demo.simulator.batch_desk import BatchDesk
from demo.simulator.batches import BatchesHandler, BatchHandler, CancelHandler, ResultsHandler
from demo.simulator.behaviour import Behaviour, InvalidChange
from demo.simulator.bill import PRICES, PriceTable
from demo.simulator.faults import SimulatedError
from demo.simulator.handler import ApiHandler
from demo.simulator.limits import ApiLimits, LimitTable
from demo.simulator.messages import MessagesHandler
from demo.simulator.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

ADDRESS = "127.0.0.1"  # a simulated API is nobody else's business
BACKLOG = 1_024  # callers that connect in the same instant, as the threads of several workers do
IN_TIME_S = 10.0  # starting and stopping take milliseconds; a machine that needs longer is broken
# Above the 256 MB of a batch, so that a body that is too large gets its 413 instead of a closed connection.
MAX_BUFFER_BYTES = 288 * 1024 * 1024


class ModelsHandler(ApiHandler):
    """GET /v1/models, which clients ask to find out whether their key is good."""

    def get(self) -> None:
        """List the one model that stands for all: the simulator answers under any name."""
        self.authenticate()
        self.reply({"data": [{"type": "model", "id": "simulated", "display_name": "Simulated"}], "has_more": False})


class ControlHandler(ApiHandler):
    """Behaviour, limits and prices, to look at and to change while running."""

    def get(self) -> None:
        """Show them."""
        self.reply(self.simulator.settings())

    def patch(self) -> None:
        """Change some, and show them all."""
        try:
            self.simulator.change(json.loads(self.request.body))
        except (AttributeError, InvalidChange, TypeError, ValueError) as error:
            raise SimulatedError(400, f"{type(error).__name__}: {error}") from error
        self.get()


class BatchesLookHandler(ApiHandler):
    """All batches of all keys, and the calls to their API."""

    def get(self) -> None:
        """Show them."""
        self.reply(self.desk.look())


class BillHandler(ApiHandler):
    """What the answers cost."""

    def get(self) -> None:
        """Show the bill, and with `?answers=1` how often each prompt and custom id was answered."""
        self.reply(self.simulator.bill.look(answers=self.get_query_argument("answers", "0") not in {"", "0"}))

    def delete(self) -> None:
        """Forget it."""
        self.simulator.bill.clear()
        self.set_status(204)


class CallsHandler(ApiHandler):
    """The log of calls."""

    def get(self) -> None:
        """Show the summary, and unless `?summary=1` the calls, or with `?ended_after=<time>` those ended since."""
        log, since = self.simulator.log, self.get_query_argument("ended_after", "")
        wants_calls = self.get_query_argument("summary", "0") in {"", "0"}
        calls = {"calls": log.calls(float(since) if since else None)} if wants_calls else {}
        self.reply({**log.summary(), **calls})

    def delete(self) -> None:
        """Forget the calls."""
        self.simulator.log.clear()
        self.set_status(204)


HANDLERS: dict[str, type[ApiHandler]] = {
    "/v1/messages": MessagesHandler,
    "/v1/messages/batches": BatchesHandler,
    "/v1/messages/batches/([^/]+)": BatchHandler,
    "/v1/messages/batches/([^/]+)/cancel": CancelHandler,
    "/v1/messages/batches/([^/]+)/results": ResultsHandler,
    "/v1/models": ModelsHandler,
    "/_batches": BatchesLookHandler,
    "/_bill": BillHandler,
    "/_calls": CallsHandler,
    "/_control": ControlHandler,
}


class RunningServer:
    """A simulated API, as `running` gives it; its methods can be called from any thread."""

    def __init__(self, simulator: Simulator, port: int) -> None:
        """Take the port; what connects from now on is answered once `serve` runs."""
        self._simulator, self._stopping, self._desk = simulator, asyncio.Event(), BatchDesk(simulator)
        # Not tornado's bind_sockets: it leaves the socket open when the port is taken (6.6).
        self._socket = socket.create_server((ADDRESS, port), backlog=BACKLOG)
        self._socket.setblocking(False)
        self.url = f"http://{ADDRESS}:{self._socket.getsockname()[1]}"
        self._loop: Future[asyncio.AbstractEventLoop] = Future()

    async def serve(self) -> None:
        """Answer until it is told to stop; then close every connection, open streams included."""
        shared = {"simulator": self._simulator, "desk": self._desk}
        handlers = [(path, handler, shared) for path, handler in HANDLERS.items()]
        # Without tornado's log: the log of calls is /_calls.
        application = Application(handlers, log_function=lambda _: None)
        http = HTTPServer(application, max_buffer_size=MAX_BUFFER_BYTES)
        http.add_socket(self._socket)
        self._loop.set_result(asyncio.get_running_loop())
        await self._stopping.wait()
        self._simulator.stopping = True
        http.stop()
        await http.close_all_connections()

    def stop(self) -> None:
        """End `serve`."""
        self._do(self._stopping.set)

    def control(self, **changes: Any) -> None:
        """Change fields while running, as PATCH /_control does, or raise InvalidChange: `control(latency=0.2)`."""
        self._do(lambda: self._simulator.change(changes))

    def calls(self) -> list[dict[str, Any]]:
        """Give the calls in the log, oldest first, with the fields of `LoggedCall`."""
        return self._do(self._simulator.log.calls)

    def summary(self) -> dict[str, Any]:
        """Give counts per status, and of the calls that go on."""
        return self._do(self._simulator.log.summary)

    def batches(self) -> dict[str, Any]:
        """Give `batches`, each as the API tells of it and its `waiting` requests, and counts of the `calls`."""
        return self._do(self._desk.look)

    def bill(self, *, answers: bool = False) -> dict[str, Any]:
        """Give what the answers cost, and how many there were, as GET /_bill does; `answers` adds each one's number."""
        return self._do(lambda: self._simulator.bill.look(answers=answers))

    def clear(self) -> None:
        """Forget the calls; the bill stays."""
        self._do(self._simulator.log.clear)

    def _do(self, function: Callable[[], T]) -> T:
        """Run a function between two requests, and give what it gives."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop.result(IN_TIME_S)).result(IN_TIME_S)


@contextmanager
def running(
    behaviour: Behaviour | None = None,
    *,
    limits: ApiLimits | LimitTable | None = None,
    keys: Iterable[str] = (),
    prices: PriceTable = PRICES,
    port: int = 0,
) -> Iterator[RunningServer]:
    """Run a simulated API in a thread, for as long as the block lasts; raise OSError if the port is taken.

    Args:
        behaviour: how it answers; None answers everything at once and well.
        limits: of each key, for all models or for each model pattern; None is no limit.
        keys: API keys to accept; none means that any key is good.
        prices: of each model pattern.
        port: 0 takes a free one.
    """
    server = RunningServer(Simulator(behaviour or Behaviour(), limits or ApiLimits(), keys, prices), port)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), name="ezai-simulator", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(IN_TIME_S)

"""Server: the simulated API on a port, in this process or in a thread of it."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from tornado.httpserver import HTTPServer
from tornado.web import Application

from demo.simulator.behaviour import Behaviour
from demo.simulator.handlers import (
    CallsHandler,
    ControlHandler,
    CountTokensHandler,
    HealthHandler,
    ModelsHandler,
    UnknownPathHandler,
)
from demo.simulator.limits import Limits, LimitTable
from demo.simulator.messages import MessagesHandler
from demo.simulator.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tornado.web import RequestHandler

T = TypeVar("T")
# Resolves when the server listens: with its handle, and with what stops it.
Started: TypeAlias = "Future[tuple[RunningServer, Callable[[], object]]]"

# A simulated API is nobody else's business.
ADDRESS = "127.0.0.1"
# Callers that connect in the same instant, as the threads of several workers do.
BACKLOG = 1_024
# Starting and stopping take milliseconds; a machine that needs longer is broken.
PATIENCE_S = 10.0
# Above the API's own 32 MB, so that a body that is too large gets its 413 instead of a closed connection.
MAX_BUFFER_BYTES = 64 * 1024 * 1024


class Server:
    """A simulated API that listens on 127.0.0.1. To be made and stopped in a running event loop."""

    def __init__(self, simulator: Simulator, port: int = 0) -> None:
        """Begin to listen.

        Args:
            simulator: what answers.
            port: 0 takes a free one.

        Raises:
            OSError: the port is taken.
        """
        self.simulator = simulator
        # Not tornado's bind_sockets: it leaves the socket open when the port is taken (6.6).
        listening = socket.create_server((ADDRESS, port), backlog=BACKLOG)
        listening.settimeout(0)
        self.url = f"http://{ADDRESS}:{listening.getsockname()[1]}"
        self._http = HTTPServer(_application(simulator), max_buffer_size=MAX_BUFFER_BYTES)
        self._http.add_socket(listening)

    async def stop(self) -> None:
        """Stop listening and close every connection, open streams included."""
        self.simulator.stopping = True
        self._http.stop()
        await self._http.close_all_connections()


class RunningServer:
    """A simulated API in a thread, as `running` gives it; its methods can be called from any thread."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        """Take a server and the loop in which it runs."""
        self._simulator = server.simulator
        self._loop = loop
        self.url = server.url

    def control(self, **changes: Any) -> None:
        """Change fields while running, as PATCH /_control does: `control(latency=0.2, rpm=60)`.

        Raises:
            InvalidChange: naming each unknown field and the nearest known one.
        """
        self._do(lambda: self._simulator.change(changes))

    def calls(self) -> list[dict[str, Any]]:
        """Give the calls in the log, oldest first, with the fields of `Call`."""
        return self._do(self._simulator.log.calls)

    def summary(self) -> dict[str, Any]:
        """Give counts per status and the greatest concurrency."""
        return self._do(self._simulator.log.summary)

    def clear(self) -> None:
        """Forget the calls."""
        self._do(self._simulator.log.clear)

    def _do(self, function: Callable[[], T]) -> T:
        """Run a function between two requests, and give what it gives."""
        future: Future[T] = Future()
        self._loop.call_soon_threadsafe(_resolve, future, function)
        return future.result(PATIENCE_S)


@contextmanager
def running(
    behaviour: Behaviour | None = None,
    *,
    limits: Limits | LimitTable | None = None,
    keys: Iterable[str] = (),
    port: int = 0,
) -> Iterator[RunningServer]:
    """Run a simulated API in a thread, for as long as the block lasts.

    Args:
        behaviour: how it answers; None answers everything at once and well.
        limits: of each key, for all models or for each model pattern; None is no limit.
        keys: API keys to accept; none means that any key is good.
        port: 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """
    simulator = Simulator(behaviour or Behaviour(), limits or Limits(), keys)
    started: Started = Future()
    thread = threading.Thread(target=_run, args=(simulator, port, started), name="ezai-simulator", daemon=True)
    thread.start()
    try:
        server, stop = started.result(PATIENCE_S)
        try:
            yield server
        finally:
            stop()
    finally:
        thread.join(PATIENCE_S)


def _run(simulator: Simulator, port: int, started: Started) -> None:
    try:
        asyncio.run(_serve(simulator, port, started))
    except OSError as error:
        started.set_exception(error)


async def _serve(simulator: Simulator, port: int, started: Started) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    server = Server(simulator, port)
    started.set_result((RunningServer(server, loop), lambda: loop.call_soon_threadsafe(stopping.set)))
    await stopping.wait()
    await server.stop()


def _application(simulator: Simulator) -> Application:
    shared = {"simulator": simulator}
    handlers: list[tuple[str, type[RequestHandler], dict[str, Any]]] = [
        ("/v1/messages", MessagesHandler, shared),
        ("/v1/messages/count_tokens", CountTokensHandler, shared),
        ("/v1/models", ModelsHandler, shared),
        ("/healthz", HealthHandler, shared),
        ("/_control", ControlHandler, shared),
        ("/_calls", CallsHandler, shared),
    ]
    return Application(
        list(handlers),
        default_handler_class=UnknownPathHandler,
        default_handler_args=shared,
        log_function=lambda _: None,  # the log of calls is /_calls
    )


def _resolve(future: Future[T], function: Callable[[], T]) -> None:
    try:
        future.set_result(function())
    except Exception as error:  # noqa: BLE001 - it belongs to the thread that asked
        future.set_exception(error)

"""AnswerHandler: sends the answer to a call, whole or as a stream, well or broken."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from typing import TYPE_CHECKING, cast

from demo.simulator.errors import JSON_TYPE, ApiError
from demo.simulator.faults import MID_STREAM, Fault
from demo.simulator.handlers import ApiHandler
from demo.simulator.headers import ratelimit_headers
from demo.simulator.pages import HTML_TYPE, page
from demo.simulator.streams import BEHIND, script

if TYPE_CHECKING:
    from tornado.http1connection import HTTP1Connection

    from demo.simulator.accounts import Account
    from demo.simulator.calls import Call
    from demo.simulator.replies import Reply

STREAM_TYPE = "text/event-stream; charset=utf-8"
# Seconds between a complete message and what comes behind it.
BEHIND_AFTER_S = 0.01
# SO_LINGER on, for 0 s: the kernel resets the connection instead of closing it in good order.
LINGER_NOT = struct.pack("ii", 1, 0)


class AnswerHandler(ApiHandler):
    """One call while it is answered: what is sent is noted in its record and taken from its account."""

    call: Call
    account: Account | None = None

    @property
    def connection(self) -> HTTP1Connection:
        """The connection of the call; its `close` is a fault as the client sees it."""
        return cast("HTTP1Connection", self.request.connection)

    def reset(self) -> None:
        """Reset the connection, as a machine that has crashed, or a firewall, does."""
        self.connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self.connection.close()

    def send_refusal(self, error: ApiError) -> None:
        """Send an error; the 429 of a rate limit says what is left, and when to come again."""
        self.call.status = error.status
        if self.simulator.behaviour.headers and error.retry_after is not None:
            self.set_header("retry-after", str(error.retry_after))
            self._set_ratelimit_headers()
        self.refuse(error)

    def send_page(self) -> None:
        """Send an HTML page as if it were a message."""
        self._begin(HTML_TYPE)
        self.finish(page("Welcome"))

    async def send_message(self, reply: Reply, fault: Fault | None) -> None:
        """Send a whole message."""
        body = json.dumps(reply.message()).encode()
        if fault is Fault.BROKEN_JSON:
            body = body[: len(body) // 2]
        self._produced(len(reply.pieces))
        self._begin(JSON_TYPE)
        self.set_header("Content-Length", str(len(body)))
        if fault is Fault.DRIP:
            await self._drip(body)
        elif fault in MID_STREAM:
            self.write(body[: len(body) // 2])
            await self.flush()
            self.connection.close()
        else:
            self.finish(body)

    async def send_stream(self, reply: Reply, fault: Fault | None) -> None:
        """Send a message as events, each token when it is due."""
        self.simulator.log.open_stream()
        try:
            await self._send_events(reply, fault)
        finally:
            self.simulator.log.close_stream()

    async def _send_events(self, reply: Reply, fault: Fault | None) -> None:
        head, deltas, tail = script(reply, fault)
        self._begin(STREAM_TYPE)
        self.set_header("Cache-Control", "no-cache")
        # Otherwise a small event waits for the acknowledgement of the one before: 40 ms.
        self.connection.stream.set_nodelay(True)
        if fault is Fault.DRIP:
            self._produced(len(deltas))
            await self._drip(b"".join([head, *deltas, tail]))
            return
        self.write(head)
        await self.flush()
        await self._send_tokens(deltas)
        if fault is Fault.DROP_MID_STREAM:
            self.connection.close()
        elif fault is Fault.RESET:
            self.reset()
        elif fault in BEHIND:
            await self._send_behind(tail, fault)
        else:
            self.finish(tail)

    async def _send_behind(self, tail: bytes, fault: Fault) -> None:
        """Complete the message, and go on."""
        self.write(tail)
        await self.flush()
        # A packet of its own: the client has read the message by then.
        await asyncio.sleep(BEHIND_AFTER_S)
        if fault is Fault.RESET_BEHIND:
            self.reset()
        elif fault is Fault.OPEN_BEHIND:
            await asyncio.get_running_loop().create_future()  # until the client hangs up
        else:
            self.finish(BEHIND[fault])

    async def _send_tokens(self, deltas: list[bytes]) -> None:
        pace = self.simulator.behaviour.tokens_per_second
        if not pace:
            self.connection.write(b"".join(deltas))
            self._produced(len(deltas))
            return
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number, delta in enumerate(deltas, 1):
            # From the beginning, not from the token before: delays must not add up.
            await asyncio.sleep(max(0.0, begun + number / pace - loop.time()))
            self.connection.write(delta)
            self._produced(1)

    async def _drip(self, data: bytes) -> None:
        for place in range(len(data)):
            self.write(data[place : place + 1])
            await self.flush()
            await asyncio.sleep(self.simulator.behaviour.drip_interval)

    def _begin(self, content_type: str) -> None:
        """Set what every successful answer has in its head."""
        self.call.status = 200
        self.set_header("Content-Type", content_type)
        if self.simulator.behaviour.headers:
            self._set_ratelimit_headers()

    def _produced(self, tokens: int) -> None:
        self.call.output_tokens += tokens
        if self.account is not None:
            self.account.produce(tokens, time.monotonic())

    def _set_ratelimit_headers(self) -> None:
        if self.account is not None:
            for name, value in ratelimit_headers(self.account, time.monotonic(), time.time()):
                self.set_header(name, value)

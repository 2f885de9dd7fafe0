"""MessagesHandler: POST /v1/messages, answered whole or as a stream, well or broken."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import time
from typing import TYPE_CHECKING, cast

from demo.simulator.bill import shown
from demo.simulator.faults import (
    BEHIND,
    HTML_TYPE,
    JSON_TYPE,
    UNANSWERED,
    WHOLE,
    SimulatedError,
    page,
    rate_limited,
    refusal,
)
from demo.simulator.handler import ApiHandler
from demo.simulator.limits import ratelimit_headers
from demo.simulator.prompts import Prompt, legible, prompt
from demo.simulator.replies import Events, Reply, reply

if TYPE_CHECKING:
    from demo.simulator.limits import Account
    from demo.simulator.simulator import LoggedCall

STREAM_TYPE = "text/event-stream; charset=utf-8"
# Seconds between the bytes of a dripping answer: below any read timeout in use, so that it outlives each of them.
DRIP_INTERVAL_S = 0.05
# Seconds between a complete message and what comes behind it.
BEHIND_AFTER_S = 0.01
# SO_LINGER on, for 0 s: the kernel resets the connection instead of closing it.
LINGER_NOT = struct.pack("ii", 1, 0)


class MessagesHandler(ApiHandler):
    """One request for a message, from its arrival to the last byte of its answer."""

    call: LoggedCall
    task: asyncio.Task[None]
    account: Account | None = None

    async def post(self) -> None:
        """Answer, and leave a record in the log whatever happens."""
        self.call = self.simulator.log.begin()
        self.task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            await self._serve()
        except SimulatedError as error:
            self.call.status = error.status_code
            if error.retry_after is not None:
                self._tell_limits({"retry-after": str(error.retry_after)})
            self.refuse(error)
        except asyncio.CancelledError:
            pass  # by on_connection_close: nobody listens any more
        finally:
            self.simulator.log.end(self.call)

    def on_connection_close(self) -> None:
        """Stop producing as soon as nobody listens."""
        if not self.simulator.stopping:
            self.call.closed_by_client = time.time()
        self.task.cancel()

    async def _serve(self) -> None:
        key, call = self.authenticate(), self.call
        # So that calls of different keys can be told apart in the log.
        call.key = shown(key)
        asked = prompt(self.request.body)
        call.model, call.user_id, call.stream = asked.model, asked.user_id, asked.stream
        call.fault = self._fault(asked)
        if call.fault and (refused := refusal(call.fault, asked.params, key, streaming=asked.stream)):
            raise refused
        account = self.account = self.simulator.account(key, asked.model)
        cache = self.simulator.caches[key]
        with legible():
            measured = cache.measure(asked.params, time.monotonic())
        usage = measured.usage
        denial = account.admit(usage.counted, time.monotonic())
        if denial is not None:
            raise rate_limited(denial.limit, max(1, math.ceil(denial.wait)))
        call.input_tokens, call.cache_read_tokens = usage.counted, usage.cache_read_input_tokens
        account.in_flight += 1
        answer = reply(asked, usage, self.simulator.behaviour.output_tokens)
        try:
            await asyncio.sleep(self.simulator.behaviour.first_byte(usage.counted))
            # Not earlier: of several that come at the same time each one writes.
            if call.fault not in UNANSWERED:
                cache.remember(measured.kept, time.monotonic())
            await self._answer(answer, call.fault)
        finally:
            account.in_flight -= 1
            if call.status == 200 and call.output_tokens:
                self.simulator.charge(key, asked.model, usage, call.output_tokens, kind="live")
                if call.fault in WHOLE and call.output_tokens == len(answer.pieces):
                    self.simulator.bill.answered(measured.digest)

    def _fault(self, asked: Prompt) -> str | None:
        """Give what is to go wrong: what the request asks for, or what befalls it."""
        named = self.request.headers.get("x-simulate", asked.fault)
        return self.simulator.behaviour.fault(streaming=asked.stream) if named is None else named

    async def _answer(self, answer: Reply, fault: str | None) -> None:
        stream = self.call.stream
        match fault:
            case "server_error":
                raise SimulatedError(500, "Simulated 500")
            case "hang":
                await asyncio.get_running_loop().create_future()  # until the client hangs up
            case "drop":
                self.connection.close()
            case "reset" if not stream:
                self._reset()
            case "html":
                await self._send(HTML_TYPE, Events(b"", [], page("Welcome")), fault)
            case _ if stream:
                await self._send(STREAM_TYPE, answer.events(fault), fault)
            case _:
                self._produced(len(answer.pieces))
                await self._send(JSON_TYPE, answer.whole(fault), fault)

    async def _send(self, content_type: str, events: Events, fault: str | None) -> None:
        """Send an answer, each token when it is due, and end as the fault wants it."""
        self.call.status = 200
        self.set_header("Content-Type", content_type)
        self._tell_limits({})
        if fault == "drip":
            for byte in events.head + b"".join(events.deltas) + events.tail:
                self.write(bytes([byte]))
                await self.flush()
                await asyncio.sleep(DRIP_INTERVAL_S)
            return
        if events.head:
            # Otherwise a small event waits for the acknowledgement of the one before: 40 ms.
            self.connection.stream.set_nodelay(True)
            self.write(events.head)
            await self.flush()
            await self._send_tokens(events.deltas)
        if fault == "drop_mid_stream":
            self.connection.close()
        elif fault == "reset":
            self._reset()
        elif fault in BEHIND and self.call.stream:
            await self._send_behind(events.tail, str(fault))
        else:
            self.finish(events.tail)

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

    async def _send_behind(self, tail: bytes, fault: str) -> None:
        """Complete the message, and go on."""
        self.write(tail)
        await self.flush()
        # A packet of its own: the client has read the message by then.
        await asyncio.sleep(BEHIND_AFTER_S)
        if fault == "reset_behind":
            self._reset()
        elif fault == "open_behind":
            await asyncio.get_running_loop().create_future()  # until the client hangs up
        else:
            self.finish(BEHIND[fault])

    def _reset(self) -> None:
        self.connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self.connection.close()

    def _produced(self, tokens: int) -> None:
        self.call.output_tokens += tokens
        if self.account is not None:
            self.account.produce(tokens, time.monotonic())

    def _tell_limits(self, headers: dict[str, str]) -> None:
        if self.account is not None:
            headers |= ratelimit_headers(self.account, time.monotonic(), time.time())
        for name in headers if self.simulator.behaviour.headers else ():
            self.set_header(name, headers[name])

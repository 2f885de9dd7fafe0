"""MessagesHandler: POST /v1/messages."""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial
from typing import TYPE_CHECKING, cast

from demo.simulator.answers import AnswerHandler
from demo.simulator.errors import (
    ApiError,
    GatewayError,
    credit_used_up,
    echo,
    invalid,
    model_forbidden,
    overloaded,
    rate_limited,
    simulated,
    spend_limited,
)
from demo.simulator.faults import ECHOES, USER_ID_PREFIX, Fault, Status, named
from demo.simulator.prompts import Prompt, prompt
from demo.simulator.replies import reply
from demo.simulator.usage import Usage, uncached

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo.simulator.accounts import Account

# Shown of a key, so that calls of different keys can be told apart in the log.
KEY_CHARS_SHOWN = 4
INTERNAL_SERVER_ERROR = 500
# The errors of a gateway, or of an API without capacity: neither asks for the limits of the key.
ERRORS_AT_ONCE: dict[Fault, Callable[[], ApiError]] = {
    Fault.OVERLOADED: overloaded,
    Fault.UNAVAILABLE: GatewayError,
    Fault.SPEND_LIMIT: spend_limited,
    Fault.CREDIT_USED_UP: credit_used_up,
    Fault.MODEL_FORBIDDEN: model_forbidden,
    Fault.RATE_LIMITED: partial(rate_limited, "requests per minute", 1),
}


class MessagesHandler(AnswerHandler):
    """One request for a message, from its arrival to the last byte of its answer."""

    task: asyncio.Task[None]

    async def post(self) -> None:
        """Answer, and leave a record in the log whatever happens."""
        self.call = self.simulator.log.begin(self.request_id)
        self.task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            await self._serve()
        except ApiError as error:
            self.send_refusal(error)
        except asyncio.CancelledError:
            pass  # by on_connection_close: nobody listens any more
        finally:
            self.simulator.log.end(self.call)

    def on_connection_close(self) -> None:
        """Stop producing as soon as nobody listens."""
        if not self.simulator.stopping:
            self.simulator.log.hung_up(self.call)
        self.task.cancel()

    async def _serve(self) -> None:
        key = self.authenticate()
        self.call.key = key[-KEY_CHARS_SHOWN:] if len(key) > KEY_CHARS_SHOWN else "…"
        asked = prompt(self.body())
        self.call.model, self.call.user_id, self.call.stream = asked.model, asked.user_id, asked.stream
        fault = self._fault(asked, key)
        account = self.account = self.simulator.account(key, asked.model)
        usage = self._admit(account, key, asked)
        account.in_flight += 1
        try:
            await self._produce(asked, usage, fault)
        finally:
            account.in_flight -= 1

    def _fault(self, asked: Prompt, key: str) -> Fault | None:
        """Give what is to go wrong once the call is admitted: what the request asks for, or what befalls it.

        Raises:
            ApiError: it goes wrong before the limits are asked.
        """
        fault = self._forced(asked) or self._befallen(asked)
        if fault is None:
            return None
        self.call.fault = str(fault)
        if fault in ECHOES:
            raise echo(Fault(fault), asked.params, key)
        if (error := _error_at_once(fault, streaming=asked.stream)) is not None:
            raise error
        return fault if isinstance(fault, Fault) else None

    def _forced(self, asked: Prompt) -> Fault | Status | None:
        name = self.request.headers.get("x-simulate")
        if name is None and asked.user_id is not None and asked.user_id.startswith(USER_ID_PREFIX):
            name = asked.user_id.removeprefix(USER_ID_PREFIX)
        try:
            return None if name is None else named(name)
        except ValueError as error:
            raise invalid(str(error)) from error

    def _befallen(self, asked: Prompt) -> Fault | None:
        behaviour = self.simulator.behaviour
        if behaviour.outage:
            return Fault.OVERLOADED
        if behaviour.spend_limit:
            return Fault.SPEND_LIMIT
        if behaviour.model_forbidden:
            return Fault.MODEL_FORBIDDEN
        return behaviour.draw_fault(self.simulator.random, streaming=asked.stream)

    def _admit(self, account: Account, key: str, asked: Prompt) -> Usage:
        """Take the call's cost from its limits.

        Raises:
            ApiError: 429, one of them is used up.
        """
        cached = b'"cache_control"' in self.request.body
        usage = self.simulator.cache(key).measure(asked.params) if cached else uncached(asked.params)
        denial = account.admit(usage.counted, time.monotonic())
        if denial is not None:
            raise rate_limited(denial.limit, max(1, math.ceil(denial.wait)))
        if cached:
            self.simulator.cache(key).write(asked.params)
        self.call.input_tokens = usage.counted
        return usage

    async def _produce(self, asked: Prompt, usage: Usage, fault: Fault | None) -> None:
        behaviour, random = self.simulator.behaviour, self.simulator.random
        if delay := behaviour.draw_latency(random):
            await asyncio.sleep(delay)
        match fault:
            case Fault.SERVER_ERROR:
                raise simulated(INTERNAL_SERVER_ERROR)
            case Fault.HANG:
                await asyncio.get_running_loop().create_future()  # until the client hangs up
            case Fault.DROP:
                self.connection.close()
            case Fault.RESET if not asked.stream:
                self.reset()
            case Fault.HTML:
                self.send_page()
            case _:
                answer = reply(asked, usage, behaviour.draw_output_tokens(random))
                await (self.send_stream if asked.stream else self.send_message)(answer, fault)


def _error_at_once(fault: Fault | Status, *, streaming: bool) -> ApiError | None:
    """Give the error of a fault that never gets as far as the limits, None for any other."""
    if isinstance(fault, Status):
        return simulated(*fault)
    if fault is Fault.STREAM_OVERLOADED and not streaming:
        return overloaded()
    make = ERRORS_AT_ONCE.get(fault)
    return None if make is None else make()

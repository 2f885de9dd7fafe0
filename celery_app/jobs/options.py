"""Celery's options among a call's parameters: a slip that the API would answer minutes later, in words of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_app.errors import InvalidRequest
from celery_app.lanes import LANES

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What says where a job goes.
_PLACES = ("queue", "exchange", "routing_key")

#: What the parameters are handed over in, to ``apply_async``.
_CONTAINERS = ("args", "kwargs", "params")

#: What else ``apply_async`` takes. Neither the Messages API nor the SDK has a parameter of one of these names; if ever
#: it has, ``extra_body`` passes it on.
_OPTIONS = (
    "add_to_parent",
    "compression",
    "connection",
    "countdown",
    "eta",
    "expires",
    "headers",
    "ignore_result",
    "link",
    "link_error",
    "max_retries",
    "priority",
    "producer",
    "rate_limit",
    "reply_to",
    "retry",
    "retry_policy",
    "serializer",
    "shadow",
    "soft_time_limit",
    "task_id",
    "time_limit",
)

#: What functions of ours take, but not all of them, and ``apply_async`` calls otherwise.
_OURS = ("lane", "cancel_on_close", "on_invalid", "progress", "wait", "tenant", "unique", "unique_for", "usd")

_KNOWN = frozenset((*_PLACES, *_CONTAINERS, *_OPTIONS, *_OURS))


def refuse_options(params: Mapping[str, Any], function: str) -> None:
    """Say what an option among a call's parameters should be.

    Args:
        params: of a call.
        function: of ours that was given them; ``apply_async``: the task's own.

    Raises:
        InvalidRequest: naming the option.
    """
    for name in params:
        if name in _KNOWN:
            advice = _of_the_task if function == "apply_async" else _of_ours
            raise InvalidRequest(path=name, problem=advice(name, params[name], function))


def _of_ours(name: str, value: Any, function: str) -> str:
    if name in _PLACES:
        return f"{function}() takes lane={_lane(value)!r}, not {name}="
    if name in _CONTAINERS:
        return f"{function}() takes the parameters themselves, as in {function}(model=…, max_tokens=…, messages=[…])"
    if name == "lane":
        return f"{function}() takes one lane for all, beside the items"
    if name == "wait":
        return f"{function}() waits for room as long as its lane's submit_wait; submit() and submit_many() take wait="
    if name in _OURS:
        return f"{function}() does not take it"
    example = f"create_message.apply_async(kwargs={{…}}, queue={LANES[1].name!r}, {name}=…)"
    return f"{function}() does not take Celery's options; send the call by {example}"


def _of_the_task(name: str, value: Any, function: str) -> str:
    if name in _CONTAINERS:
        return f"a call's parameters are all there is in kwargs: {function}(kwargs={{'model': …}}, queue=…)"
    option = f"queue={_lane(value)!r}" if name in {"lane", *_PLACES} else f"{name}=…"
    return f"is no parameter of a call, but an option: {function}(kwargs={{…}}, {option})"


def _lane(value: Any) -> str:
    name = str(getattr(value, "name", value))
    return name if name in {lane.name for lane in LANES} else LANES[1].name

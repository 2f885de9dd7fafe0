"""The message around the jobs of a batch: made once by Celery and kombu themselves, then filled in."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from kombu import compression
from kombu.utils.json import dumps

from celery_app.broker.packet import Packet, cost_header
from celery_app.budget.cost import cost_of
from celery_app.budget.prefix import prefix_of
from celery_app.budget.prices import priced
from celery_app.budget.variant import metered_model
from celery_app.client.sending import CREATE_TASK, task_of
from celery_app.jobs.headers import BATCH_HEADER, PUBLISH_HEADER
from celery_app.jobs.identity import identity
from celery_app.routing import COST, DEADLINE_AT, MODEL, PREFIX, SUBMITTED_AT
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_app.lanes import Lane

#: Stand for what differs from job to job; long enough to occur in no message by chance.
_BODY, _ID, _REPR, _MODEL, _AT, _DEADLINE, _PREFIX = (f"lanes-{uuid.uuid4().hex}-{n}" for n in range(7))

#: Arguments that pass the check of a request, to be replaced.
_ARGUMENTS = {"model": _MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}

#: Plain: what it encodes has been checked to be JSON.
_encode = json.JSONEncoder().encode


class Envelope:
    """Makes the text of one message after the other, as ``apply_async`` would put it into a lane.

    Celery and kombu need 400 µs for each, nearly all of it for what is the same in all of them. Their signals and
    events are left out: ``before_task_publish`` is sent once, for the whole batch, and ``task-sent`` for none.

    Attributes:
        prefix: of all keys of the broker.
    """

    def __init__(self, app: Any, lane: Lane, batch_id: str, tenant: str | None = None) -> None:
        """Have one message made and keep its form.

        Args:
            app: the Celery application.
            lane: where the jobs go.
            batch_id: of their batch.
            tenant: whose jobs they are; their worker reads it in the message.

        Raises:
            kombu.exceptions.OperationalError: if no broker answers; redis-py's errors, too.
        """
        self._batch_id, self._lane, self._settings = batch_id, lane, settings_of(app)
        self._compression = app.conf.task_compression
        with app.amqp.lane_connection() as connection:
            channel = connection.channel()  # kombu tries for ever to get its default one
            message = _captured(app, channel, lane, {BATCH_HEADER: batch_id, **identity(tenant, None, None)})
            self.prefix: str = channel.global_keyprefix
            self._step = int(channel.priority(channel._get_message_priority(message)))
        self._headers = message["headers"]
        self._before, self._after = _around_arguments(message, self._compression)
        self._parts = _split(message)

    def task_id(self, index: int) -> str:
        """Return the id of the batch's job with that index."""
        return f"{self._batch_id}-{index}"

    def packet(
        self, index: int, params: Mapping[str, Any], description: str, names: Mapping[str, Any] | None = None
    ) -> Packet:
        """Return one job.

        Args:
            index: of the job within its batch.
            params: its arguments, checked.
            description: what logs and Flower may show of them.
            names: headers that say whose job it is, and its name.
        """
        now, model, own = time.time(), metered_model(params), self.task_id(index)
        deadline = now + (self._lane.deadline or 0)
        values = {
            _BODY: _encode(self._body(params)),
            _ID: f'"{own}"',
            _REPR: _encode(description),
            _MODEL: _encode(model),
            _AT: repr(now),
            _DEADLINE: repr(deadline),
        }
        prefix = prefix_of(params) if self._lane.prompt_caches else ""
        values[_PREFIX] = _encode(prefix)
        text = "".join([values.get(part, part) for part in self._parts]).encode()
        cost = cost_header(priced(self._settings, model, cost_of(params)))
        headers = {**self._headers, "id": own, MODEL: model, COST: cost, SUBMITTED_AT: now}
        headers.update(names or {})
        if self._lane.prompt_caches:
            headers[PREFIX] = prefix
        if self._lane.deadline is not None:
            headers[DEADLINE_AT] = deadline
        return Packet(own, text, self._step, headers, "", 0.0)

    def _body(self, params: Mapping[str, Any]) -> str:
        body = f"{self._before}{_encode(params)}{self._after}".encode()
        if self._compression:
            body, _ = compression.compress(body, self._compression)
        return base64.b64encode(body).decode()


def _captured(app: Any, channel: Any, lane: Lane, headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message that ``apply_async`` would put into the lane."""
    put: list[dict[str, Any]] = []
    channel._put = lambda _, message, **__: put.append(message)
    with app.amqp.Producer(channel, auto_declare=False) as producer:
        task_of(app, CREATE_TASK).apply_async(
            kwargs=_ARGUMENTS, queue=lane.name, task_id=_ID, headers=dict(headers), producer=producer
        )
    del channel._put
    message = next(message for message in put if message["headers"].get("id") == _ID)
    for name in (PUBLISH_HEADER, COST):
        message["headers"].pop(name, None)  # facts of one submission
    return message


def _around_arguments(message: Mapping[str, Any], compressed: str | None) -> tuple[str, str]:
    """Return what stands before and behind the keyword arguments in a message's body."""
    body = base64.b64decode(message["body"])
    if compressed:
        body = compression.decompress(body, message["headers"]["compression"])
    before, after = body.decode().split(dumps(_ARGUMENTS))
    return before, after


def _split(message: dict[str, Any]) -> list[str]:
    """Return the message's text in pieces; what differs from job to job is replaced by its marks."""
    headers, properties = message["headers"], message["properties"]
    message["body"], properties["delivery_tag"] = _BODY, _ID
    description = headers["kwargsrepr"]
    for fields in (headers, properties):
        # In the properties there is what the scripts read, and options that kombu does not know.
        fields.update({name: _REPR for name, value in fields.items() if value == description})
        given = ((SUBMITTED_AT, _AT), (DEADLINE_AT, _DEADLINE), (PREFIX, _PREFIX))
        fields.update({name: mark for name, mark in given if name in fields})
    marks = f"{_BODY}|{_ID}|{_REPR}|{_MODEL}|{_AT}|{_DEADLINE}|{_PREFIX}"
    return re.split(f'"({marks})"', dumps(message))

"""The event ``task-sent``: it leaves with its job, in the same script, and only if the job is queued by that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.serialization import dumps
from kombu.utils.json import dumps as to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

TASK_SENT = "task-sent"


class Announcement:
    """One event, as Celery's dispatcher hands it to the producer that it takes this for."""

    def __init__(self) -> None:
        self._event: Any = None

    @classmethod
    def of(cls, app: Any, lane: str, headers: Mapping[str, Any]) -> Announcement:
        """Return the event of one submission, with the fields that Celery gives it.

        Args:
            app: whose dispatcher names the sender, and counts its clock on.
            lane: that the job goes to.
            headers: of its message.
        """
        fields = {name: headers.get(name) for name in ("root_id", "parent_id", "retries", "eta", "expires")}
        described = {"name": headers["task"], "args": headers["argsrepr"], "kwargs": headers["kwargsrepr"]}
        routed = {"queue": lane, "exchange": "", "routing_key": lane}
        announcement = cls()
        dispatcher = app.amqp._event_dispatcher  # noqa: SLF001 - Celery's own, which its messages are sent with
        dispatcher.publish(TASK_SENT, {"uuid": headers["id"], **described, **fields, **routed}, announcement)
        return announcement

    def publish(self, event: Any, **options: Any) -> None:
        """Take the event for later, when there is a channel to send it through."""
        self._event, self._options = event, options

    def arguments(self, channel: Any) -> tuple[str, str]:
        """Return what the server is to publish, its text before its channel as kombu has them."""
        options = self._options
        content_type, encoding, body = dumps(self._event, serializer=options["serializer"])
        properties = {"delivery_mode": options["delivery_mode"]}
        message = channel.prepare_message(body, 0, content_type, encoding, options["headers"], properties)
        channel._inplace_augment_message(message, options["exchange"], options["routing_key"])  # noqa: SLF001
        return channel._get_publish_topic(options["exchange"], options["routing_key"]), to_json(message)  # noqa: SLF001

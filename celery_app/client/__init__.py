"""What a web app calls: submit, ask, stream, cancel; for asyncio, too; and a batch of any size."""

from celery_app.client.batch import Batch
from celery_app.client.client import Client

#: On the process's Celery application: the project's own if it has called `install`, else `celery_app.app`.
_default = Client()

submit = _default.submit
submit_many = _default.submit_many
ask = _default.ask
stream = _default.stream
stream_from = _default.stream_from
cancel = _default.cancel
aask = _default.aask
astream = _default.astream
astream_from = _default.astream_from
acancel = _default.acancel
explain = _default.explain

__all__ = [
    "Batch",
    "Client",
    "aask",
    "acancel",
    "ask",
    "astream",
    "astream_from",
    "cancel",
    "explain",
    "stream",
    "stream_from",
    "submit",
    "submit_many",
]

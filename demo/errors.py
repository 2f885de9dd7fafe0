"""What can go wrong with the stack."""

from __future__ import annotations

from celery_app.errors import LanesError


class Unusable(LanesError):
    """{problem}."""


class ChildEnded(LanesError):
    """{name} ended unexpectedly with status {status}{log}"""  # noqa: D415 - it ends in the log's last lines


class NotReady(LanesError):
    """{name} was not ready within {seconds:.0f} s{log}"""  # noqa: D415 - likewise

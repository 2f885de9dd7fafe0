"""What the lanes' page shows, as one dict."""

from __future__ import annotations

from typing import Any

import click

from celery_app.cli.output import command_of
from celery_app.metrics.in_force import in_force
from celery_app.metrics.overview import Overview


class Shown:
    """Looks at the lanes of an application, again and again; what has to be remembered in between is here."""

    def __init__(self, app: Any) -> None:
        """Take an application with lanes; nothing connects yet."""
        self._app = app
        self._overview = Overview(app, command_of(click.get_current_context()))

    def look(self) -> dict[str, Any]:
        """Return what `Overview.look` does, and ``limits``: what is in force, and where it comes from.

        Raises:
            BrokerUnreachable: if no broker answers.
            InvalidSettings: if the environment is wrong.
        """
        limits = [
            {"kind": each.kind, "name": each.name, "field": each.field, "value": each.value, "origin": each.origin}
            | {"set": each.control is not None}
            for each in in_force(self._app)
        ]
        return {**self._overview.look(), "limits": limits}

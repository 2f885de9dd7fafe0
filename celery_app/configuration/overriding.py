"""Celery's configuration in a process that serves lanes, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def override(app: Any, values: Mapping[str, Any]) -> None:
    """Set configuration so that it wins: Celery asks for a namespaced name before the plain one."""
    prefix = f"{app.namespace.rstrip('_')}_" if app.namespace else ""
    for key, value in values.items():
        name = f"{prefix}{key}"
        app.conf.update({key: value, name.upper() if prefix.isupper() else name: value})

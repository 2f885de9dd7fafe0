"""Whose job it is, and whether it is the only one of its name: headers of a submission."""

from __future__ import annotations

from typing import Any

from celery_app.errors import InvalidRequest
from celery_app.routing import TENANT, UNIQUE, UNIQUE_FOR

#: Characters of a tenant's name, or of a job's, at most: each is part of a key in Redis.
LONGEST_NAME = 200

#: Seconds for which a name may outlast its job at most: a year. What is to be known for longer belongs in a database.
LONGEST_KEPT = 366 * 86_400


def identity(tenant: str | None, unique: str | None, unique_for: float | None) -> dict[str, Any]:
    """Return the headers that say so.

    Args:
        tenant: whose job it is; None: nobody's in particular.
        unique: while a job of this task, tenant and name is queued or runs, its handle comes back; None: no name.
        unique_for: seconds for which that lasts after the job's end, at most a year; None: 0.

    Raises:
        InvalidRequest: naming the one that is wrong.
    """
    headers: dict[str, Any] = {}
    for name, header, value in (("tenant", TENANT, tenant), ("unique", UNIQUE, unique)):
        if value is None:
            continue
        if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
            raise InvalidRequest(path=name, problem=f"is a text of 1 to {LONGEST_NAME} characters")
        headers[header] = value
    if unique_for is not None:
        if unique is None:
            raise InvalidRequest(path="unique_for", problem="goes with unique=, the name that it is about")
        is_number = isinstance(unique_for, int | float) and not isinstance(unique_for, bool)
        if not is_number or not 0 <= unique_for <= LONGEST_KEPT:
            raise InvalidRequest(path="unique_for", problem=f"is a number of seconds from 0 to {LONGEST_KEPT:,}")
        headers[UNIQUE_FOR] = unique_for
    return headers

"""Which calls may go to the API's Message Batches, as far as their parameters tell."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from celery_app.budget.variant import metered_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_app.settings import Settings

#: Parameters of a call that its request in a batch has no place for: headers, and the query.
BESIDE = ("betas", "extra_headers", "extra_query", "user_profile_id", "workspace_id")


def shipping_lanes(settings: Settings, params: Mapping[str, Any]) -> str:
    """Return the lanes that would ship a call, with spaces between; empty: it goes live.

    What is no plain model, such as a fast one, goes live; so does a call that says anything beside its body.

    Args:
        settings: of the application.
        params: the keyword arguments of ``create_message``, checked.
    """
    lanes = [lane for lane in settings.lanes if lane.message_batches]
    if not lanes or any(params.get(name) for name in BESIDE):
        return ""
    model = str(params.get("model"))
    if metered_model(params) != model:
        return ""
    return " ".join(lane.name for lane in lanes if any(fnmatchcase(model, pattern) for pattern in lane.message_batches))

"""What the scheduler has to know of the settings: which budget each model of a lane draws on, the tenants' weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_app.budget.budget import budget_for
from celery_app.keys import TERMS, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery_app.settings import Settings

#: Entries at most: anybody may name models. Beyond it all are forgotten, and those in use are written down anew.
MOST_TERMS = 1_000


def write_terms(client: Any, prefix: str, settings: Settings, models: Iterable[tuple[str, str]]) -> None:
    """Write down the budgets of models.

    Args:
        client: without a key prefix of its own.
        prefix: of all keys.
        settings: with the keys and their limits.
        models: names of lanes, each with that of a model as jobs name it.

    Raises:
        redis.exceptions.RedisError: if Redis is away or full.
    """
    terms = {
        f"{lane.name}:{model}": budget_for(settings, lane, model).terms for lane, model in _known(settings, models)
    }
    if not terms:
        return
    with client.pipeline(transaction=False) as pipeline:
        pipeline.hlen(TERMS.of(prefix))
        pipeline.hset(TERMS.of(prefix), mapping=terms)
        count, _ = pipeline.execute()
    if count > MOST_TERMS:
        client.delete(TERMS.of(prefix))


def rewrite_terms(client: Any, prefix: str, settings: Settings) -> None:
    """Write down anew what is there: the settings may be others than those of the worker that wrote it."""
    fields = (field.decode().partition(":") for field in client.hkeys(TERMS.of(prefix)))
    write_terms(client, prefix, settings, [(lane, model) for lane, _, model in fields])


def write_weights(client: Any, prefix: str, settings: Settings) -> None:
    """Write down the tenants' weights, in place of those that are there."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.delete(WEIGHTS.of(prefix))
        if settings.tenant_weights:
            pipeline.hset(WEIGHTS.of(prefix), mapping=dict(settings.tenant_weights))
        pipeline.execute()


def _known(settings: Settings, models: Iterable[tuple[str, str]]) -> Iterable[tuple[Any, str]]:
    for name, model in models:
        lane = settings.lane(name)
        if lane is not None:
            yield lane, model

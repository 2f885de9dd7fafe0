"""What a batch will cost, before anything of it is queued."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_app.budget.cost import cost_of
from celery_app.budget.prices import OUTPUT_TOKENS, TOKENS_PER_CHARACTER, estimated_usd, in_batch, most_usd, price_of
from celery_app.budget.variant import metered_model
from celery_app.client.item import check_item
from celery_app.configuration.variables import NANODOLLARS
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.errors import InvalidItem, InvalidSettings
from celery_app.keys import BUDGET_MODEL, TERMS
from celery_app.settings import settings_of
from celery_app.stand_in import stand_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery_app.budget.cost import Cost
    from celery_app.configuration.prices import Price
    from celery_app.lanes import Lane


@dataclass(frozen=True, slots=True)
class Estimate:
    """What jobs will cost.

    Attributes:
        jobs: how many.
        live: dollars, one call each, as far as what their models lately used tells.
        in_batches: dollars, all of them in message batches of the API's.
        at_most: dollars, live, if each answer is as long as its ``max_tokens`` allows.
    """

    jobs: int
    live: float
    in_batches: float
    at_most: float


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a batch will cost; nothing of it is queued.

    Attributes:
        total: of all jobs whose models have a price.
        by_model: model -> its part, the dearest first.
        unpriced: model without a price -> jobs of it; they are in no sum.
        invalid: the items that would be left out.
    """

    total: Estimate
    by_model: dict[str, Estimate]
    unpriced: dict[str, int]
    invalid: list[InvalidItem] = field(default_factory=list)


def dry_run(app: Any, items: Iterable[Any], lane: Lane, on_invalid: str = "stop") -> DryRun:
    """Return what a batch will cost; see `Client.submit_many`.

    Raises:
        InvalidItem: naming the item's index and the first bad field.
        InvalidSettings: there are no prices.
        BrokerUnreachable: it knows what models lately used.
    """
    settings = settings_of(app)
    if not settings.prices:
        raise InvalidSettings(problems="EZAI_PRICES is not set, so nobody knows what a call costs")
    models: dict[str, _Sum] = {}
    unpriced: defaultdict[str, int] = defaultdict(int)
    invalid: list[InvalidItem] = []
    for index, item in enumerate(items):
        try:
            check_item(index, item)
        except InvalidItem as exc:
            if on_invalid == "stop":
                raise
            invalid.append(exc)
            continue
        model = metered_model(item)
        price = price_of(settings, model)
        if price is None:
            unpriced[model] += 1
            continue
        if model not in models:
            models[model] = _Sum(price, _learned(app, lane, model))
        models[model].add(cost_of(item))
    parts = {model: each.estimate() for model, each in models.items()}
    by_model = dict(sorted(parts.items(), key=lambda each: -each[1].live))
    sums = zip(*((each.jobs, each.live, each.in_batches, each.at_most) for each in parts.values()), strict=True)
    total = Estimate(*map(sum, sums)) if parts else Estimate(0, 0.0, 0.0, 0.0)
    return DryRun(total, by_model, dict(unpriced), invalid)


class _Learned(NamedTuple):
    """Input tokens of a character, and output tokens, of a model's calls lately."""

    per_character: float = TOKENS_PER_CHARACTER
    output: float = OUTPUT_TOKENS


class _Sum:
    """What jobs of one model come to, in nanodollars."""

    def __init__(self, price: Price, learned: _Learned) -> None:
        self._price, self._learned = price, learned
        self._jobs = self._live = self._most = 0

    def add(self, cost: Cost) -> None:
        output = self._learned.output if cost.max_tokens is None else min(self._learned.output, cost.max_tokens)
        self._live += estimated_usd(self._price, cost, self._learned.per_character, output)
        self._most += most_usd(self._price, cost)
        self._jobs += 1

    def estimate(self) -> Estimate:
        sums = (self._live, in_batch(self._price, self._live), self._most)
        return Estimate(self._jobs, *(each / NANODOLLARS for each in sums))


def _learned(app: Any, lane: Lane, model: str) -> _Learned:
    """Return what is known of a model's calls (scheduler/scripts/lib/model.lua), in the budget that workers draw on."""
    if stand_in() is not None:
        return _Learned()
    client, prefix = redis_client(app), key_prefix(app)
    with broker_errors(app):
        terms: Any = client.hget(TERMS.of(prefix), f"{lane.name}:{model}")
        if terms is None:
            return _Learned()
        key = BUDGET_MODEL.of(prefix, json.loads(terms)["name"], model)
        found: Any = client.hmget(key, "tokens", "characters", "output")
    tokens, characters, output = (None if each is None else float(each) for each in found)
    ratio = tokens / characters if tokens is not None and characters else TOKENS_PER_CHARACTER
    return _Learned(ratio, OUTPUT_TOKENS if output is None else output)

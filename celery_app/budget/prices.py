"""What calls cost: before they are made, at most, and afterwards. In integer nanodollars.

A dollar per million tokens is 1,000 nanodollars per token, so the prices that there are come to whole numbers; sums of
cents as floats would not.
"""

from __future__ import annotations

import dataclasses
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from celery_app.budget.variant import pattern_of_variant, split_model

if TYPE_CHECKING:
    from celery_app.budget.cost import Cost
    from celery_app.budget.usage import Usage
    from celery_app.configuration.prices import Price
    from celery_app.settings import Settings

#: Nanodollars per token, of a dollar per million tokens.
PER_TOKEN = 1_000

#: Tokens of a character, and of an answer without a bound, before anything is known of the model
#: (scheduler/scripts/lib/model.lua).
TOKENS_PER_CHARACTER, OUTPUT_TOKENS = 0.3, 500


def price_of(settings: Settings, model: str) -> Price | None:
    """Return the price of a model, as `metered_model` names it: that of the first pattern that fits.

    A variant has the price of the first pattern that names it, as in ``*opus*+fast``, and its model's where none does.
    """
    if not settings.prices:
        return None
    base, variant = split_model(model)
    named = pattern_of_variant(settings.prices, base, variant) if variant else None
    pattern = named or next((each for each in settings.prices if fnmatchcase(base, each)), None)
    return None if pattern is None else settings.prices[pattern]


def priced(settings: Settings, model: str, cost: Cost) -> Cost:
    """Return a cost with what it comes to in money, at most; the same where no price is known."""
    price = price_of(settings, model)
    return cost if price is None else dataclasses.replace(cost, usd=most_usd(price, cost))


def most_usd(price: Price, cost: Cost) -> int:
    """Return nanodollars that a call costs at most, as far as its tokens can be told before it is made."""
    output = next((each for each in (cost.output_tokens, cost.max_tokens) if each is not None), OUTPUT_TOKENS)
    return estimated_usd(price, cost, TOKENS_PER_CHARACTER, output)


def estimated_usd(price: Price, cost: Cost, per_character: float, output_tokens: float) -> int:
    """Return nanodollars of a call by the tokens of a character and of its answer."""
    prompt = max(price.input, price.cache_write) if cost.cached else price.input
    tokens = cost.input_tokens + cost.characters * per_character
    return round((tokens * prompt + output_tokens * price.output) * PER_TOKEN) * cost.requests


def used_usd(price: Price, usage: Usage) -> int:
    """Return nanodollars that a call has cost that was not part of a message batch."""
    read, written, hour = max(0, usage.cache_read), max(0, usage.cache_created), usage.cache_hour
    dollars = (usage.input_tokens - written) * price.input + usage.output_tokens * price.output
    cached = (written - hour) * price.cache_write + hour * price.cache_write_1h + read * price.cache_read
    return round((dollars + cached) * PER_TOKEN)


def part_in_batch(settings: Settings, model: str) -> float:
    """Return the part of a call's price that it costs as part of a message batch; 1 where no price is known."""
    price = price_of(settings, model)
    return 1.0 if price is None else price.part_in_batch


def in_batch(price: Price, usd: int) -> int:
    """Return what nanodollars come to as part of a message batch."""
    return round(usd * price.part_in_batch)

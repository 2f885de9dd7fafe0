"""Bill: what the answers cost, by key, live and in batches; and how often each question was answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from demo.simulator.caches import PromptUsage

Json = dict[str, Any]

NANODOLLARS = 1_000_000_000  # of a dollar; a token costs a whole number of them
PER_TOKEN = 1_000  # nanodollars, at a dollar per million tokens
PRICED = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one family of models costs, in dollars per million tokens; those of Claude Haiku 4.5.

    Attributes:
        input: of input tokens that have nothing to do with a cache.
        output: of output tokens.
        cache_write: of input tokens that are kept for five minutes.
        cache_write_1h: of input tokens that are kept for an hour.
        cache_read: of input tokens that are read from a cache.
        batch: what of all that is to be paid in a batch, 0 to 1.
    """

    input: float = 1.0
    output: float = 5.0
    cache_write: float = 1.25
    cache_write_1h: float = 2.0
    cache_read: float = 0.1
    batch: float = 0.5

    def nanodollars(self, usage: PromptUsage, output_tokens: int) -> int:
        """Give the price of a live answer."""
        minutes = usage.cache_creation_input_tokens - usage.hour_tokens
        tokens = (usage.input_tokens, output_tokens, minutes, usage.hour_tokens, usage.cache_read_input_tokens)
        prices = (self.input, self.output, self.cache_write, self.cache_write_1h, self.cache_read)
        return round(sum(number * price * PER_TOKEN for number, price in zip(tokens, prices, strict=True)))


# Model pattern (fnmatch) -> its price.
PriceTable: TypeAlias = "Mapping[str, Price]"
# Of what models of these names cost (platform.claude.com, pricing); all others cost what Haiku does.
PRICES: PriceTable = {
    "*opus*": Price(input=5.0, output=25.0, cache_write=6.25, cache_write_1h=10.0, cache_read=0.5),
    "*sonnet*": Price(input=3.0, output=15.0, cache_write=3.75, cache_write_1h=6.0, cache_read=0.3),
}


def shown(key: str) -> str:
    """Give what is shown of an API key: its last 4 characters, never all of it."""
    return key[-4:] if len(key) > 4 else "…"


class Bill:
    """What all answers cost, a row for each key, kind ("live" or "batch") and model; and who was answered."""

    def __init__(self) -> None:
        """Start with nothing to pay."""
        self._rows: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
        self._prompts: Counter[bytes] = Counter()
        self._custom_ids: Counter[str] = Counter()

    def clear(self) -> None:
        """Forget all."""
        self._rows.clear()
        self._prompts.clear()
        self._custom_ids.clear()

    def charge(self, row: tuple[str, str, str], price: Price, usage: PromptUsage, output_tokens: int) -> None:
        """Charge what an answer cost: its prompt, and the tokens that were produced of it."""
        live = price.nanodollars(usage, output_tokens)
        due = round(live * price.batch) if row[1] == "batch" else live
        tokens = {**usage._asdict(), "output_tokens": output_tokens}
        sums = self._rows[row]
        for name, number in (("calls", 1), ("live", live), ("due", due), *((name, tokens[name]) for name in PRICED)):
            sums[name] += number

    def answered(self, digest: bytes, custom_id: str | None = None) -> None:
        """Count a whole answer to a prompt, in a batch to a custom id, too."""
        self._prompts[digest] += 1
        if custom_id is not None:
            self._custom_ids[custom_id] += 1

    def look(self, *, answers: bool = False) -> Json:
        """Give the sums of all rows, the rows, and how many were answered; `answers` adds each, with its number."""
        sums: Counter[str] = sum(self._rows.values(), Counter())
        rows = [
            {"key": shown(key), "kind": kind, "model": model, **_told(row)}
            for (key, kind, model), row in sorted(self._rows.items())
        ]
        prompts = Counter({digest.hex(): number for digest, number in self._prompts.items()})
        counts = {"prompts": prompts, "custom_ids": self._custom_ids}
        told = {name: {"answers": count.total(), "distinct": len(count)} for name, count in counts.items()}
        found: Json = {**_told(sums), "rows": rows, "answered": told}
        return {**found, "answers": counts} if answers else found


def _told(row: Counter[str]) -> Json:
    """Give dollars, the dollars that the same would have cost live, and the counts of what was paid for."""
    dollars = {"dollars": row["due"] / NANODOLLARS, "dollars_if_live": row["live"] / NANODOLLARS}
    return {**dollars, **{name: row[name] for name in ("calls", *PRICED)}}

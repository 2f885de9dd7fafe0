"""Account: the buckets of one API key for one family of models."""

from __future__ import annotations

from typing import NamedTuple

from demo.simulator.buckets import Bucket
from demo.simulator.limits import ANY_MODEL, Limits, LimitTable, pattern_of


class Denial(NamedTuple):
    """Why a call is not admitted."""

    limit: str  # what is used up, as the error message says it
    wait: float  # seconds until the call would be admitted, 0 if nobody can know


class Account:
    """What one API key has used of one family of models."""

    def __init__(self, limits: Limits, now: float) -> None:
        """Start with full buckets, at a time in seconds on a steady clock."""
        self.in_flight = 0
        self.requests: Bucket | None = None
        self.input_tokens: Bucket | None = None
        self.output_tokens: Bucket | None = None
        self.reshape(limits, now)

    def reshape(self, limits: Limits, now: float) -> None:
        """Take other limits from now on, keeping what is in the buckets."""
        self.limits = limits
        self.requests = _reshaped(self.requests, limits.rpm, limits.burst, now)
        self.input_tokens = _reshaped(self.input_tokens, limits.itpm, limits.token_burst, now)
        self.output_tokens = _reshaped(self.output_tokens, limits.otpm, limits.token_burst, now)

    def admit(self, input_tokens: int, now: float) -> Denial | None:
        """Take a call's cost from every bucket, or from none and say why.

        Output tokens are only known once produced, so here the bucket must merely not be empty.
        """
        limit = self.limits.in_flight
        if limit is not None and self.in_flight >= limit:
            return Denial("concurrent connections", 0.0)
        denial = max(self._denials(input_tokens, now), key=lambda denial: denial.wait, default=None)
        if denial is None:
            self._take(input_tokens, now)
        return denial

    def produce(self, output_tokens: int, now: float) -> None:
        """Take tokens that were produced; they may drive the bucket below zero."""
        if self.output_tokens is not None:
            self.output_tokens.take(output_tokens, now)

    def _denials(self, input_tokens: int, now: float) -> list[Denial]:
        costs = (
            ("requests per minute", self.requests, 1),
            ("input tokens per minute", self.input_tokens, input_tokens),
            ("output tokens per minute", self.output_tokens, 1),
        )
        waits = ((name, bucket.wait(cost, now)) for name, bucket, cost in costs if bucket is not None)
        return [Denial(name, wait) for name, wait in waits if wait > 0]

    def _take(self, input_tokens: int, now: float) -> None:
        if self.requests is not None:
            self.requests.take(1, now)
        if self.input_tokens is not None:
            self.input_tokens.take(input_tokens, now)


class Accounts:
    """The accounts of every key, opened when a key first calls a family of models."""

    def __init__(self, table: LimitTable) -> None:
        """Start with no account; each will get the limits that the table has for its models."""
        self._table = table
        self._accounts: dict[tuple[str, str], Account] = {}

    def find(self, key: str, model: str, now: float) -> Account:
        """Give the account of a key for a model."""
        pattern = pattern_of(model, self._table)
        account = self._accounts.get((key, pattern))
        if account is None:
            account = self._accounts[key, pattern] = Account(self._limits(pattern), now)
        return account

    def reshape(self, table: LimitTable, now: float) -> None:
        """Take another table from now on; a pattern that is gone loses its accounts."""
        self._table = table
        self._accounts = {
            place: account for place, account in self._accounts.items() if place[1] in {*table, ANY_MODEL}
        }
        for (_, pattern), account in self._accounts.items():
            account.reshape(self._limits(pattern), now)

    def _limits(self, pattern: str) -> Limits:
        return self._table.get(pattern, Limits())


def _reshaped(bucket: Bucket | None, limit: float | None, burst: float, now: float) -> Bucket | None:
    if limit is None:
        return None
    if bucket is None:
        return Bucket(limit, burst, now)
    bucket.resize(limit, burst, now)
    return bucket

"""Simulator: the state of one simulated API, and the log of its calls, an independent witness of what reached it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from dataclasses import asdict, dataclass, fields
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

from demo.simulator.behaviour import Behaviour, InvalidChange, Record, changed
from demo.simulator.bill import PRICES, Bill, Price, PriceTable
from demo.simulator.caches import PromptCache
from demo.simulator.limits import ANY_MODEL, Account, ApiLimits, LimitTable, pattern_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from demo.simulator.caches import PromptUsage

LIMIT_FIELDS = frozenset(field.name for field in fields(ApiLimits))
BATCHES = ""  # in the place of a pattern: what the batches API has used
CALLS_KEPT = 100_000  # a long benchmark; about 40 MB


@dataclass(slots=True)
class LoggedCall:
    """One request for a message; times are seconds since the epoch."""

    arrived: float
    status: int | None = None  # of the answer; None while there is none, and for good if the connection was dropped
    model: str | None = None
    user_id: str | None = None  # of the request's metadata
    key: str | None = None  # the last 4 characters of the API key, never all of it
    stream: bool = False  # whether one was asked for
    input_tokens: int = 0  # of the prompt, cache creation included, cache reads not
    cache_read_tokens: int = 0  # of the prompt
    output_tokens: int = 0  # produced so far
    fault: str | None = None  # what was done to the call on purpose
    closed_by_client: float | None = None  # when the client hung up before the end
    ended: float | None = None  # when it had got all that it will get


_FIELDS = tuple(field.name for field in fields(LoggedCall))
_ENDED = _FIELDS.index("ended")
_values = attrgetter(*_FIELDS)


class CallLog:
    """The last calls in order of arrival, and a count of all of them."""

    def __init__(self, kept: int = CALLS_KEPT) -> None:
        """Start empty; `kept` calls are remembered, all are counted."""
        self._going_on: dict[int, LoggedCall] = {}
        # Plain tuples of plain values are left alone by the garbage collector; 100,000 objects would hold up
        # every stream for 30 ms whenever it looks through all of them.
        self._ended: deque[tuple[Any, ...]] = deque(maxlen=kept)
        self._statuses: Counter[str] = Counter()

    def clear(self) -> None:
        """Forget all calls that have ended; those that go on stay."""
        self._ended.clear()
        self._statuses.clear()

    def begin(self) -> LoggedCall:
        """Note the arrival of a call."""
        call = LoggedCall(time.time())
        self._going_on[id(call)] = call
        return call

    def end(self, call: LoggedCall) -> None:
        """Note that a call has got all that it will get."""
        call.ended = time.time()
        self._ended.append(_values(self._going_on.pop(id(call))))
        self._statuses["no_answer" if call.status is None else str(call.status)] += 1

    def summary(self) -> dict[str, Any]:
        """Give the number of calls by status since the last clear, and of those that go on."""
        total = self._statuses.total()
        return {"statuses": dict(self._statuses), "total": total, "in_flight": len(self._going_on)}

    def calls(self, ended_after: float | None = None) -> list[dict[str, Any]]:
        """Give the calls that are remembered, in order of arrival (their first field), each as a JSON object.

        With a time, only those that have ended after it.
        """
        if ended_after is None:
            records = sorted([*self._ended, *map(_values, self._going_on.values())], key=itemgetter(0))
        else:
            records = sorted((record for record in self._ended if record[_ENDED] > ended_after), key=itemgetter(0))
        return [dict(zip(_FIELDS, record, strict=True)) for record in records]


class Simulator:
    """How the API behaves now, what each key has used, and who has called."""

    def __init__(
        self,
        behaviour: Behaviour,
        limits: ApiLimits | LimitTable,
        keys: Iterable[str] = (),
        prices: PriceTable = PRICES,
    ) -> None:
        """Start with unused limits, of all models or of each model pattern; no `keys` means that any key is good."""
        self.behaviour = behaviour
        self.limits: dict[str, ApiLimits] = {ANY_MODEL: limits} if isinstance(limits, ApiLimits) else dict(limits)
        self.keys = frozenset(keys)
        self.prices = dict(prices)
        self.log, self.bill = CallLog(), Bill()
        self.stopping = False
        self.caches = defaultdict[str, PromptCache](lambda: PromptCache(self._lasts))  # by key
        self._accounts: dict[tuple[str, str], Account] = {}

    def account(self, key: str, model: str) -> Account:
        """Give the account of a key for a model; models of one pattern share one."""
        return self._account(key, pattern_of(model, self.limits))

    def batch_account(self, key: str) -> Account:
        """Give the account of a key for calls to the batches API."""
        return self._account(key, BATCHES)

    def _account(self, key: str, pattern: str) -> Account:
        if (key, pattern) not in self._accounts:
            self._accounts[key, pattern] = Account(self._limits_of(pattern), time.monotonic())
        return self._accounts[key, pattern]

    @property
    def limits_of_all(self) -> ApiLimits:
        """The limits of models that no pattern names; those of batches are among them."""
        return self.limits.get(ANY_MODEL, ApiLimits())

    def _limits_of(self, pattern: str) -> ApiLimits:
        return (
            ApiLimits(rpm=self.limits_of_all.batch_rpm) if pattern == BATCHES else self.limits.get(pattern, ApiLimits())
        )

    def charge(self, key: str, model: str, usage: PromptUsage, output_tokens: int, *, kind: str) -> None:
        """Charge a key for an answer, "live" or in a "batch"."""
        price = self.prices.get(pattern_of(model, self.prices), Price())
        self.bill.charge((key, kind, model), price, usage, output_tokens)

    def _lasts(self, seconds: float) -> float:
        """Ask the behaviour of now: another time scale holds for what is cached from then on."""
        return self.behaviour.lasts(seconds)

    def settings(self) -> dict[str, Any]:
        """Give what can be changed."""
        limits = {pattern: asdict(limits) for pattern, limits in self.limits.items()}
        prices = {pattern: asdict(price) for pattern, price in self.prices.items()}
        return {"behaviour": asdict(self.behaviour), "limits": limits, "prices": prices}

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change fields of `Behaviour` or `ApiLimits` while running, all of them or none, or raise InvalidChange.

        `limits` in the changes has fields by model pattern; those at the top are of all models that no pattern names.
        `prices` has the fields of `Price` by model pattern.
        """
        rest = {name: value for name, value in changes.items() if name not in {"limits", "prices", *LIMIT_FIELDS}}
        others = {name: changes[name] for name in changes if name in LIMIT_FIELDS}
        limits = _merged(self.limits, ApiLimits(), changes, "limits")
        limits[ANY_MODEL] = changed(limits.get(ANY_MODEL, ApiLimits()), others)
        prices = _merged(self.prices, Price(), changes, "prices")
        self.behaviour, self.limits, self.prices = changed(self.behaviour, rest), limits, prices
        for (_, pattern), account in self._accounts.items():
            account.reshape(self._limits_of(pattern), time.monotonic())


def _merged(table: Mapping[str, Record], default: Record, changes: Mapping[str, Any], name: str) -> dict[str, Record]:
    """Give a table by model pattern with what the changes say of it, or raise InvalidChange."""
    merged = dict(table)
    try:
        for pattern, new in changes.get(name, {}).items():
            merged[pattern] = changed(merged.get(pattern, default), new)
    except AttributeError as error:
        raise InvalidChange(f"{name}: an object of fields by model pattern") from error
    return merged

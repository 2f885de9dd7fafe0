"""Simulator: the state of one simulated API."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import asdict
from random import Random
from typing import TYPE_CHECKING, Any

from demo.simulator.accounts import Account, Accounts
from demo.simulator.behaviour import Behaviour
from demo.simulator.calls import CallLog
from demo.simulator.fields import InvalidChange, changed, kinds, unknown
from demo.simulator.limits import ANY_MODEL, Limits, LimitTable
from demo.simulator.usage import PromptCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BEHAVIOUR_FIELDS = frozenset(kinds(Behaviour))
LIMIT_FIELDS = frozenset(kinds(Limits))
SECTIONS = frozenset({"behaviour", "limits"})


class Simulator:
    """How the API behaves now, what each key has used, and who has called."""

    def __init__(self, behaviour: Behaviour, limits: Limits | LimitTable, keys: Iterable[str] = ()) -> None:
        """Start with unused limits.

        Args:
            behaviour: how to answer.
            limits: one for all models, or one for each model pattern.
            keys: API keys to accept; none means that any key is good.
        """
        self.behaviour = behaviour
        self.limits: dict[str, Limits] = {ANY_MODEL: limits} if isinstance(limits, Limits) else dict(limits)
        self.keys = frozenset(keys)
        self.random = Random(behaviour.seed)
        self.log = CallLog()
        self.stopping = False
        self._accounts = Accounts(self.limits)
        self._caches: defaultdict[str, PromptCache] = defaultdict(PromptCache)

    def account(self, key: str, model: str) -> Account:
        """Give the account of a key for a model."""
        return self._accounts.find(key, model, time.monotonic())

    def cache(self, key: str) -> PromptCache:
        """Give the prompt cache of a key."""
        return self._caches[key]

    def settings(self) -> dict[str, Any]:
        """Give what can be changed, in the form in which `change` takes it."""
        limits = {pattern: asdict(limits) for pattern, limits in self.limits.items()}
        return {"behaviour": asdict(self.behaviour), "limits": limits}

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change fields while running, all of them or none.

        Args:
            changes: `behaviour`: its fields; `limits`: fields by model pattern, None drops the pattern. A field
                of either may also stand at the top; a limit is then that of all other models.

        Raises:
            InvalidChange: naming each unknown field and the nearest known one.
        """
        behaviour, limits = _sorted_out(changes)
        new_behaviour = changed(self.behaviour, behaviour)
        new_limits = _merged(self.limits, limits)
        if new_behaviour.seed != self.behaviour.seed:
            self.random.seed(new_behaviour.seed)
        self.behaviour, self.limits = new_behaviour, new_limits
        self._accounts.reshape(new_limits, time.monotonic())


def _sorted_out(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split changes into those of the behaviour and those of the limits of each pattern."""
    _refuse_unknown(changes)
    behaviour, limits = dict(_object(changes, "behaviour")), dict(_object(changes, "limits"))
    for name in changes.keys() - SECTIONS:
        if name in BEHAVIOUR_FIELDS:
            behaviour[name] = changes[name]
        else:
            limits[ANY_MODEL] = {**_object(limits, ANY_MODEL), name: changes[name]}
    return behaviour, limits


def _refuse_unknown(names: Iterable[str]) -> None:
    known = {*BEHAVIOUR_FIELDS, *LIMIT_FIELDS, *SECTIONS}
    strangers = [unknown(name, sorted(known)) for name in names if name not in known]
    if strangers:
        raise InvalidChange("; ".join(strangers))


def _merged(table: Mapping[str, Limits], changes: Mapping[str, Any]) -> dict[str, Limits]:
    merged = dict(table)
    for pattern in changes:
        if changes[pattern] is None:
            merged.pop(pattern, None)
        else:
            merged[pattern] = changed(merged.get(pattern, Limits()), _object(changes, pattern))
    return merged


def _object(changes: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = changes.get(name, {})
    if not isinstance(value, dict):
        raise InvalidChange(f"{name}: {value!r} is not an object of fields")
    return value

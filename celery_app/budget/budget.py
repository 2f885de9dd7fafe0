"""The budget of one API key and one family of models, kept in Redis."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeAlias

from celery_app.budget.call_end import CallEnd
from celery_app.budget.headers import RateLimits
from celery_app.budget.reservation import Reservation, Settlement, Warned
from celery_app.budget.variant import MARK, pattern_of_variant, split_model
from celery_app.scheduler.scripts import RESERVE, SETTLE
from celery_app.settings import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis import Redis

    from celery_app.budget.cost import Cost
    from celery_app.lanes import Lane
    from celery_app.settings import Settings

#: In place of a job that ends with a call.
NO_JOB = ("", "", 0)

#: The family of the models that no pattern names, where limits are configured for all of them together.
ANY_MODEL = "*"

#: Hex digits of the digest that stands for an API key: no two keys of a broker share one, and none can be guessed.
_DIGEST_LENGTH = 16

#: What the scripts take for "not said".
_UNKNOWN = -1

_US_PER_S = 1_000_000

_Args: TypeAlias = tuple[str | int | float, ...]


@dataclass(frozen=True, slots=True)
class Budget:
    """What an API key may use of a family of models; all of its state is in Redis, and so is its clock.

    Attributes:
        name: of the key (a digest) and the family; lanes with the same key share it.
        model: the model that is called, with its variant; the cost of calls is learned for each.
        limits: the configured ones. They may change from call to call.
        lanes: most important first.
        prefix: what stands before every key in Redis.
        mixed: whether the models that share it have limits of their own beside the configured ones; what is not
            configured is learned for each.
        sharers: names of the lanes whose calls draw on it.
        pattern: of the settings, whose limits these are; empty: none names the model.
        has_caps: whether money that its calls cost may be capped.
    """

    name: str
    model: str
    limits: Limits
    lanes: tuple[Lane, ...]
    prefix: str = ""
    mixed: bool = False
    sharers: tuple[str, ...] = ()
    pattern: str = ""
    has_caps: bool = False

    @property
    def terms(self) -> str:
        """What the scheduler has to know of it, as ``scheduler/scripts/lib/budgets.lua`` has it: JSON."""
        limits = self.limits
        known = {"name": self.name, "model": self.model, "mixed": self.mixed, "family": self.family}
        rates = {"requests": limits.rpm, "input_tokens": limits.itpm, "output_tokens": limits.otpm}
        numbers = {name: limit or 0 for name, limit in {**rates, "calls": limits.concurrency}.items()}
        by_day = {"requests": limits.rpd, "input_tokens": limits.itpd, "output_tokens": limits.otpd}
        only_set = {f"{name}_day": limit for name, limit in by_day.items() if limit}
        if self.has_caps:
            only_set["caps"] = 1
        return json.dumps({**known, **numbers, "pattern": self.pattern, "sharers": self.sharers, **only_set})

    def reserve(
        self,
        client: Redis,
        lane: Lane,
        cost: Cost,
        *,
        claim: tuple[str, str],
        job: tuple[str, str] = ("", ""),
        waits: bool = False,
    ) -> Reservation:
        """Take a call's cost out of the budget if its lane may have it now, in one round trip.

        Args:
            client: one that puts no prefix before the keys.
            lane: one of `lanes`.
            cost: of the call.
            claim: an id that no call had before, and the token under which `Leases` keep this one alive.
            job: id of the job in hand and token of its claim: the call waits at its place. Empty: there is none.
            waits: whether it will ask again, within two seconds, and its place is to be kept.

        Returns:
            A ticket, or the time to wait.

        Raises:
            redis.exceptions.RedisError: if Redis is away or full; nothing is reserved then.
        """
        asking = (self.prefix, *claim, lane.name, self.terms, *job)
        how = (int(not cost.cached), int(waits), cost.usd)
        args = (*asking, *_cost_args(cost), *how, *_lane_args(self.lanes))
        ticket, wait_us, short, shut_us, reason, account, tokens, limit = RESERVE.run(client, (), args)
        dimension: Any = _text(short) or None
        return Reservation(
            ticket=_text(ticket),
            wait_s=wait_us / _US_PER_S,
            dimension=dimension,
            shut_s=shut_us / _US_PER_S,
            reason=_text(reason),
            account=bool(account),
            tokens=tokens,
            limit=limit,
        )

    def settle(
        self,
        client: Redis,
        ticket: str,
        end: CallEnd | None = None,
        *,
        ends: tuple[str, str, int] = NO_JOB,
        bill: str = "",
    ) -> Settlement:
        """Replace a call's estimated cost by the real one, and learn from its answer.

        Args:
            client: one that puts no prefix before the keys.
            ticket: of the admission.
            end: what came of the call; None: it was answered, and no more is known.
            ends: of a job that ends with this answer, its id, its batch's id, and the seconds for which that is known.
            bill: what it has cost and whom, as `celery_app.budget.bill.bill_of` has it; empty: nobody counts that.

        Raises:
            redis.exceptions.RedisError: if Redis is away; see `celery_app.broker.debts`.
        """
        known, own, shut, opened, cancelled, *warnings = SETTLE.run(
            client, (), self.settling(ticket, end or CallEnd(), ends, bill)
        )
        told = tuple(Warned.of(each) for each in (warnings[0] if warnings else ()))
        return Settlement(bool(known), bool(own), bool(shut), bool(opened), bool(cancelled), told)

    def settling(self, ticket: str, end: CallEnd, ends: tuple[str, str, int] = NO_JOB, bill: str = "") -> _Args:
        """Return the arguments of the script by which `settle` settles a call."""
        told = (*end.arguments(self._variant), *ends, end.usd)
        more = (bill, *end.cached) if bill or end.cached else ()
        return (self.prefix, self.terms, ticket, *told, *more)

    @staticmethod
    def sent_at(ticket: str) -> int:
        """Return when a call was admitted: µs since the epoch, by Redis' clock."""
        return int(float(ticket.split(" ", 1)[0]))

    @property
    def family(self) -> str:
        """The models that share it: a model's name, a pattern, or ``*``."""
        return self.name.partition(":")[2]

    def hear(self, client: Redis, ticket: str, headers: Mapping[str, str], prefix: str = "") -> bool:
        """Learn from the headers of an answer that has only begun: a stream may take minutes until it is settled.

        Args:
            client: one that puts no prefix before the keys.
            ticket: of the admission.
            headers: of the answer.
            prefix: of its job's prompt, which the API's cache has by now; see `CallEnd`.

        Returns:
            Whether the ticket was open, and the headers said anything.

        Raises:
            redis.exceptions.RedisError: if Redis is away.
        """
        end = CallEnd(headers=headers, outcome="begun", prefix=prefix)
        return (bool(prefix) or end.said(self._variant) != RateLimits()) and self.settle(client, ticket, end).known

    @property
    def _variant(self) -> str:
        return split_model(self.model)[1]


def budget_for(settings: Settings, lane: Lane, model: str, prefix: str = "") -> Budget:
    """Return the budget that a lane's calls of a model draw on.

    Args:
        settings: with the API keys and their limits.
        lane: whose key is used; a lane with a key of its own has a budget of its own.
        model: as in the call; its limits are those of the first pattern that fits. Models that none fits share the
            general limits, or have a budget each where there are none. A name with a variant, as `metered_model` makes
            them (``claude-opus-4-6+fast``), has a budget beside its model's. Its limits are those of the first pattern
            that names the variant, as in ``*opus*+fast``; where none does, it may use as much as its model.
        prefix: what stands before every key in Redis.

    Returns:
        A budget whose name shows nothing of the key.
    """
    base, variant = split_model(model)
    family, limits = _family_of(settings, base)
    mixed, pattern = family == ANY_MODEL, family if family in settings.model_limits else ""
    if variant:
        own = pattern_of_variant(settings.model_limits, base, variant)
        pattern = own or pattern
        family, limits = (f"{family}{MARK}{variant}", limits) if own is None else (own, settings.model_limits[own])
        mixed = family.partition(MARK)[0] == ANY_MODEL
    account = f"{settings.base_url}\n{settings.api_key(lane) or ''}"
    digest = hashlib.sha256(account.encode()).hexdigest()[:_DIGEST_LENGTH]
    sharers = tuple(each.name for each in settings.lanes if settings.api_key(each) == settings.api_key(lane))
    name = f"{digest}:{family}"
    return Budget(
        name,
        model,
        limits,
        settings.lanes,
        prefix,
        mixed=mixed,
        sharers=sharers,
        pattern=pattern,
        has_caps=bool(settings.caps),
    )


def _family_of(settings: Settings, model: str) -> tuple[str, Limits]:
    """Return the family of a model without a variant, and its limits."""
    shared = ANY_MODEL if settings.limits != Limits() or not model else model
    family = next((pattern for pattern in settings.model_limits if fnmatchcase(model, pattern)), shared)
    return family, settings.model_limits.get(family, settings.limits)


def _cost_args(cost: Cost) -> _Args:
    output, most = (_UNKNOWN if tokens is None else tokens for tokens in (cost.output_tokens, cost.max_tokens))
    return cost.requests, cost.input_tokens, cost.characters, output, most


def _lane_args(lanes: tuple[Lane, ...]) -> _Args:
    """Return the lanes for the script: whoever asks says nothing of which have a worker."""
    return tuple(part for lane in lanes for part in (*lane.arguments, "0"))


def _text(reply: bytes | str) -> str:
    return reply.decode() if isinstance(reply, bytes) else reply

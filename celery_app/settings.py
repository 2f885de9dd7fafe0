"""What the operator decided, validated and frozen: from the environment, then from the application's configuration."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, Self

from celery.app.base import PendingConfiguration
from pydantic import SecretStr, ValidationError

from celery_app.configuration.derived import Derived
from celery_app.configuration.given import Given, Value, from_configuration, from_environment
from celery_app.configuration.variables import NANODOLLARS, Fields, Limits
from celery_app.connections.addresses import DEFAULT_BASE_URL, DEFAULT_BROKER_URL, MEMORY, NO_BACKEND, scheme_of
from celery_app.connections.urls import SENTINEL
from celery_app.errors import InvalidSettings
from celery_app.lanes import LANES, Lane

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery_app.configuration.prices import Price
    from celery_app.configuration.variables import Path

__all__ = ["DEFAULT_BASE_URL", "DEFAULT_BROKER_URL", "Limits", "Settings", "has_lanes", "settings_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator can set.

    Attributes:
        broker_url: where the lanes are; several URLs are joined by ``;``. ``memory://``: nowhere, see `check_broker`.
        result_backend: where results go, as Celery takes it: a URL, an alias or a class; by default the broker.
        api_keys: lane name -> key; None where no key is set.
        base_url: root of the Messages API, without ``/v1``.
        limits: of every key, for models that no pattern in `model_limits` matches.
        model_limits: model pattern (fnmatch) -> limits, in the order given.
        prices: model pattern (fnmatch) -> dollars per million tokens, in the order given; empty: nothing is counted.
        time_zone: where days end at midnight.
        usd_webhook: address that is told when most of a cap is spent, or None.
        lanes: most important first.
        usd_per_day: dollars that all calls may cost in a day; None: whatever they cost.
        tenant_usd_per_day: tenant, or ``*`` for each that is not named -> the same.
        tenant_weights: tenant -> how much of a lane it gets, where others want some, too; 1 for one that is not named.
        has_own_broker: whether somebody named a broker; otherwise `broker_url` is our default.
        has_own_backend: whether somebody named a result backend; otherwise `result_backend` is the broker.
    """

    broker_url: str = DEFAULT_BROKER_URL
    result_backend: Any = DEFAULT_BROKER_URL
    api_keys: Mapping[str, SecretStr | None] = dataclasses.field(default_factory=dict)
    base_url: str = DEFAULT_BASE_URL
    limits: Limits = dataclasses.field(default_factory=Limits)
    model_limits: Mapping[str, Limits] = dataclasses.field(default_factory=dict)
    prices: Mapping[str, Price] = dataclasses.field(default_factory=dict)
    time_zone: str = "UTC"
    usd_webhook: SecretStr | None = None
    lanes: tuple[Lane, ...] = LANES
    tenant_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    usd_per_day: float | None = None
    tenant_usd_per_day: Mapping[str, float] = dataclasses.field(default_factory=dict)
    has_own_broker: bool = False
    has_own_backend: bool = False

    @classmethod
    def from_environment(cls, broker_url: str | None = None, result_backend: str | None = None) -> Self:
        """Read ``CELERY_…``, ``EZAI_…`` and ``LANES_…`` from the process's environment.

        Args:
            broker_url: overrides ``CELERY_BROKER_URL``.
            result_backend: overrides ``CELERY_RESULT_BACKEND``.

        Raises:
            InvalidSettings: names every problem found, not only the first.
        """
        arguments = {"broker_url": broker_url, "result_backend": result_backend}
        given: dict[Path, Value] = {("celery", name): Value(value, name) for name, value in arguments.items() if value}
        return cls.from_given(Given(given, []).under(from_environment(os.environ)))

    @classmethod
    def from_given(cls, given: Given) -> Self:
        """Validate what was set.

        Raises:
            InvalidSettings: names every problem found, each by where the value was set and never with the value.
        """
        problems = list(given.problems)
        try:
            fields = Fields.model_validate(_nested(given))
        except ValidationError as exc:
            problems.extend(_problems(given, exc))
        if problems:
            raise InvalidSettings(problems="; ".join(problems)) from None
        return cls._from_fields(fields)

    @classmethod
    def _from_fields(cls, fields: Fields) -> Self:
        ezai, backend = fields.ezai, fields.celery.result_backend
        broker = fields.celery.broker_url or DEFAULT_BROKER_URL
        has_own_backend = backend not in NO_BACKEND
        return cls(
            broker_url=broker,
            result_backend=backend if has_own_backend else _backend_at(broker),
            api_keys={lane.name: getattr(ezai, f"api_key_{lane.name}") or ezai.api_key for lane in LANES},
            base_url=ezai.base_url,
            limits=Limits.model_validate({name: getattr(ezai, name) for name in Limits.model_fields}),
            model_limits=ezai.limits,
            prices=ezai.prices,
            time_zone=fields.lanes.time_zone,
            usd_webhook=ezai.usd_webhook,
            lanes=tuple(getattr(fields.lanes, lane.name).applied_to(lane) for lane in LANES),
            tenant_weights=fields.lanes.tenant_weights,
            usd_per_day=ezai.usd_per_day,
            tenant_usd_per_day=fields.lanes.tenant_usd_per_day,
            has_own_broker=fields.celery.broker_url is not None,
            has_own_backend=has_own_backend,
        )

    @property
    def caps(self) -> dict[str, int]:
        """What calls may cost in a day, by the name of the cap as `celery_app.budget.quota` has it: nanodollars."""
        dollars = {"all|": self.usd_per_day, **{f"lane|{lane.name}": lane.usd_per_day for lane in self.lanes}}
        dollars |= {f"tenant|{tenant}": usd for tenant, usd in self.tenant_usd_per_day.items()}
        return {name: round(usd * NANODOLLARS) for name, usd in dollars.items() if usd is not None}

    def check_broker(self) -> None:
        """Refuse ``memory://``, before something is sent or a worker starts; eager tests need no more of a broker.

        Raises:
            InvalidSettings: nothing can be sent to a lane.
        """
        if scheme_of(self.broker_url) == MEMORY:
            problem = "memory:// is enough for eager tests, but to send something the lanes need Redis or Valkey"
            raise InvalidSettings(problems=f"CELERY_BROKER_URL: {problem}, as in {DEFAULT_BROKER_URL}")

    def api_key(self, lane: Lane) -> str | None:
        """Return the key that a lane's calls are made with, or None where none is set."""
        key = self.api_keys.get(lane.name)
        return key.get_secret_value() if key else None

    def lane(self, name: str | None) -> Lane | None:
        """Return the lane of that name, or None for any other queue."""
        return next((lane for lane in self.lanes if lane.name == name), None)


def _backend_at(broker_url: str) -> str:
    """Results go to the broker; Celery calls what a process keeps for itself a cache.

    Of several brokers it is the first, as with all that is no message; several Sentinels know one and the same.
    """
    if scheme_of(broker_url) == MEMORY:
        return "cache+memory://"
    return broker_url if scheme_of(broker_url) == SENTINEL else broker_url.split(";", maxsplit=1)[0]


def _nested(given: Given) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in given.values.items():
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        branch[path[-1]] = value.raw
    return tree


def _problems(given: Given, exc: ValidationError) -> Iterator[str]:
    """Say each problem under the name of what was set, without its value: it may be a key."""
    for error in exc.errors(include_input=False, include_url=False, include_context=False):
        loc = tuple(map(str, error["loc"]))
        path = next(path for path in given.values if loc[: len(path)] == path)
        place = f" at {'.'.join(loc[len(path) :])}" if loc[len(path) :] else ""
        yield f"{given.values[path].origin}{place}: {error['msg'].removeprefix('Value error, ')}"


def has_lanes(app: Any) -> bool:
    """Whether a Celery application has lanes."""
    return hasattr(app, "lanes_settings_given")


def settings_of(app: Any) -> Settings:
    """Return the settings of a Celery application with lanes, loading its configuration if need be.

    They are derived from the environment and from the application's configuration as these are now, the environment
    first and field by field, unless `install` or `create_app` was given settings.

    Raises:
        InvalidSettings: if they are wrong; each time, so that no job slips past the lanes after the first.
        RuntimeError: if the application has no lanes.
    """
    if not has_lanes(app):
        raise RuntimeError(f"{app!r} has no lanes: call celery_app.install(app) where it is made")
    if app.lanes_settings_given is not None:
        given: Settings = app.lanes_settings_given
        return given
    derived: Derived[Settings] | None = vars(app).get("lanes_settings_derived")
    if derived is None:
        derived = vars(app).setdefault("lanes_settings_derived", Derived(Settings.from_given))
    return derived.of(os.environ, _loaded(app))


def origins_of(app: Any) -> Mapping[Path, str]:
    """Return where each value was set that is not our default: a variable's name, or a setting's."""
    if settings_of(app) is app.lanes_settings_given:
        return {}
    given = from_environment(os.environ).under(from_configuration(_loaded(app)))
    return {path: value.origin for path, value in given.values.items()}


def _loaded(app: Any) -> Any:
    # Celery reads its configuration on the first access, without a lock, and shows it to other threads half made.
    with app.lanes_configuring:
        conf = app.conf
        return conf.finalize() if isinstance(conf.maps[0], PendingConfiguration) else conf

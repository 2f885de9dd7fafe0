"""The environment, read once into one frozen, validated object."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from typing import TYPE_CHECKING, Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from celery_app.errors import InvalidSettings
from celery_app.lanes import DEFAULT_BROKER_URL, LANES, Lane

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_BASE_URL = "https://ezaiapi.com"

#: Redis, Redis over TLS, the same by Valkey's name, and Sentinel.
BROKER_SCHEMES = ("redis", "rediss", "valkey", "redis+socket", "sentinel")


def _broker_url(url: str) -> str:
    parts = urlsplit(url.split(";", 1)[0])
    if parts.scheme not in BROKER_SCHEMES:
        raise ValueError(f"the scheme must be one of {', '.join(BROKER_SCHEMES)}, as in {DEFAULT_BROKER_URL}")
    _ = parts.port  # raises ValueError for a port that is no number
    database = parts.path.strip("/")
    if parts.scheme != "redis+socket" and database and not database.isdigit():
        raise ValueError(f"the database must be a number, not {database!r}")
    return url


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"must be an http(s) URL, as in {DEFAULT_BASE_URL}")
    _ = parts.port
    return url.rstrip("/")


def _none_word(value: object) -> object:
    """``none`` switches a limit off that has a default."""
    return None if isinstance(value, str) and value.strip().lower() in {"none", "off"} else value


def _json(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError as exc:
        raise ValueError(f"is not valid JSON: {exc}") from None


def _api_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not text or not text.isascii() or any(c.isspace() for c in text):
        raise ValueError("an API key has no blanks and only ASCII characters")
    return key


Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]


class Limits(BaseModel):
    """What one API key may use; None: not known.

    Attributes:
        rpm: requests per minute.
        itpm: input tokens per minute.
        otpm: output tokens per minute.
        concurrency: calls in flight.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rpm: Positive | None = None
    itpm: Positive | None = None
    otpm: Positive | None = None
    concurrency: Positive | None = None


class _LaneOverride(BaseModel):
    """The fields of one lane that ``LANES_<LANE>_<FIELD>`` may set: all but name and priority, the wire format."""

    model_config = ConfigDict(extra="forbid")

    # None says "not set"; only what was set is applied.
    capacity: Positive | None = None
    submit_wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    deadline: Annotated[Seconds | None, BeforeValidator(_none_word)] = None
    call_timeout: Seconds | None = None
    floor: Fraction | None = None
    share: Fraction | None = None
    boost_after: Annotated[Seconds | None, BeforeValidator(_none_word)] = None
    attempts: Positive | None = None

    def applied_to(self, lane: Lane) -> Lane:
        return dataclasses.replace(lane, **self.model_dump(exclude_unset=True))


class _LanesEnv(BaseSettings):
    # Split once only: LANES_CRITICAL_SUBMIT_WAIT is the field submit_wait of the lane critical.
    model_config = SettingsConfigDict(
        env_prefix="LANES_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        extra="ignore",
    )

    critical: _LaneOverride = Field(default_factory=_LaneOverride)
    normal: _LaneOverride = Field(default_factory=_LaneOverride)
    batch: _LaneOverride = Field(default_factory=_LaneOverride)


class _EzaiEnv(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="EZAI_", env_ignore_empty=True, extra="ignore")

    api_key: ApiKey | None = None
    api_key_critical: ApiKey | None = None
    api_key_normal: ApiKey | None = None
    api_key_batch: ApiKey | None = None
    base_url: Annotated[str, AfterValidator(_http_url)] = DEFAULT_BASE_URL
    rpm: Positive | None = None
    itpm: Positive | None = None
    otpm: Positive | None = None
    concurrency: Positive | None = None
    # Decoded by us: pydantic-settings would stop at broken JSON, and not report what else is wrong.
    limits: Annotated[dict[str, Limits], NoDecode, BeforeValidator(_json)] = Field(default_factory=dict)


class _CeleryEnv(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="CELERY_", env_ignore_empty=True, extra="ignore")

    broker_url: Annotated[str, AfterValidator(_broker_url)] = DEFAULT_BROKER_URL
    result_backend: str | None = None


_GROUPS: tuple[type[BaseSettings], ...] = (_CeleryEnv, _EzaiEnv, _LanesEnv)


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator can set.

    Attributes:
        broker_url: where the lanes are.
        result_backend: where results go; by default the broker.
        api_keys: lane name -> key; None where no key is set.
        base_url: root of the Messages API, without ``/v1``.
        limits: of every key, for models that no pattern in `model_limits` matches.
        model_limits: model pattern (fnmatch) -> limits, in the order given.
        lanes: most important first.
    """

    broker_url: str = DEFAULT_BROKER_URL
    result_backend: str = DEFAULT_BROKER_URL
    api_keys: Mapping[str, SecretStr | None] = dataclasses.field(default_factory=dict)
    base_url: str = DEFAULT_BASE_URL
    limits: Limits = dataclasses.field(default_factory=Limits)
    model_limits: Mapping[str, Limits] = dataclasses.field(default_factory=dict)
    lanes: tuple[Lane, ...] = LANES

    @classmethod
    def from_environment(cls, broker_url: str | None = None, result_backend: str | None = None) -> Self:
        """Read ``CELERY_…``, ``EZAI_…`` and ``LANES_…`` from the process's environment.

        Args:
            broker_url: overrides ``CELERY_BROKER_URL``.
            result_backend: overrides ``CELERY_RESULT_BACKEND``.

        Raises:
            InvalidSettings: names every problem found, not only the first.
        """
        urls = {"broker_url": broker_url, "result_backend": result_backend}
        given: dict[type[BaseSettings], dict[str, Any]] = {_CeleryEnv: {k: v for k, v in urls.items() if v}}
        groups: dict[type[BaseSettings], Any] = {}
        problems = list(_unknown_names(os.environ))
        for group in _GROUPS:
            try:
                groups[group] = group(**given.get(group, {}))
            except ValidationError as exc:
                problems.extend(_problems(group, exc))
        if problems:
            raise InvalidSettings(problems="; ".join(problems))
        return cls._from_groups(groups[_CeleryEnv], groups[_EzaiEnv], groups[_LanesEnv])

    @classmethod
    def _from_groups(cls, celery: _CeleryEnv, ezai: _EzaiEnv, lanes: _LanesEnv) -> Self:
        return cls(
            broker_url=celery.broker_url,
            result_backend=celery.result_backend or celery.broker_url,
            api_keys={lane.name: getattr(ezai, f"api_key_{lane.name}") or ezai.api_key for lane in LANES},
            base_url=ezai.base_url,
            limits=Limits(rpm=ezai.rpm, itpm=ezai.itpm, otpm=ezai.otpm, concurrency=ezai.concurrency),
            model_limits=ezai.limits,
            lanes=tuple(getattr(lanes, lane.name).applied_to(lane) for lane in LANES),
        )

    def api_key(self, lane: Lane) -> str | None:
        """Return the key that a lane's calls are made with, or None where none is set."""
        key = self.api_keys.get(lane.name)
        return key.get_secret_value() if key else None

    def lane(self, name: str | None) -> Lane | None:
        """Return the lane of that name, or None for any other queue."""
        return next((lane for lane in self.lanes if lane.name == name), None)


def _known_names() -> frozenset[str]:
    names = {f"EZAI_{field.upper()}" for field in _EzaiEnv.model_fields}
    for lane in LANES:
        names |= {f"LANES_{lane.name.upper()}_{field.upper()}" for field in _LaneOverride.model_fields}
    return frozenset(names)


def _unknown_names(environ: Mapping[str, str]) -> Iterator[str]:
    known = _known_names()
    for name in sorted(environ):
        if name.startswith(("EZAI_", "LANES_")) and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)
            yield f"{name} is unknown, did you mean {nearest[0]}?"


def _problems(group: type[BaseSettings], exc: ValidationError) -> Iterator[str]:
    """Say each problem under the name of its variable, without its value: it may be a key."""
    prefix = group.model_config.get("env_prefix", "")
    for error in exc.errors(include_input=False, include_url=False):
        if error["type"] == "extra_forbidden" and group is _LanesEnv:
            continue  # reported as an unknown name already
        path = [str(part) for part in error["loc"]]
        name, rest = _variable(group, path)
        yield f"{prefix}{name.upper()}{rest}: {error['msg'].removeprefix('Value error, ')}"


def _variable(group: type[BaseSettings], path: list[str]) -> tuple[str, str]:
    """Split an error's path into the variable's name and the place within its value."""
    depth = 2 if group is _LanesEnv else 1
    name, rest = "_".join(path[:depth]), path[depth:]
    return name, f" at {'.'.join(rest)}" if rest else ""


def settings_of(app: Any) -> Settings:
    """Return the settings of a Celery application with lanes, loading its configuration if need be.

    Raises:
        InvalidSettings: if the environment is wrong; each time, so that no job slips past the lanes after the first.
        RuntimeError: if the application has no lanes.
    """
    if not hasattr(app, "lanes_settings"):
        raise RuntimeError(f"{app!r} has no lanes: call celery_app.install(app) where it is made")
    if app.lanes_settings is not None:
        return app.lanes_settings
    key = (app.conf.broker_url, app.conf.result_backend)
    cached = vars(app).get("lanes_cached")
    if cached is None or cached[0] != key:
        cached = app.lanes_cached = (key, Settings.from_environment(*key))
    return cached[1]

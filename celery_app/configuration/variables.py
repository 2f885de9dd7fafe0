"""What an operator can set: the names, the types, and whose a name is that looks like one of ours."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from celery_app.configuration.prices import Price, webhook
from celery_app.connections.addresses import DEFAULT_BASE_URL, api_root, broker_address
from celery_app.lanes import LANES, Lane

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: A value's place: ``("ezai", "rpm")``, ``("lanes", "batch", "capacity")``.
Path = tuple[str, ...]

#: Part of a name that it has to share with one of ours to be a misspelling of it: EZAI_RPN (0.67) is one, and
#: EZAI_TEAM_URL (0.62) is somebody else's.
NEAR = 0.65

#: In a dollar: money is counted in whole ones, as a token costs some hundred or more of them.
NANODOLLARS = 10**9

#: Kubernetes tells every pod of each Service: of one named ``lanes`` or ``ezai-gateway``, too.
_OF_A_SERVICE = re.compile(
    r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)", re.IGNORECASE
)


def _none_word(value: object) -> object:
    """``none`` switches a limit off that has a default."""
    return None if isinstance(value, str) and value.strip().lower() in {"none", "off"} else value


def _json(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError as exc:
        raise ValueError(f"is not valid JSON: {exc}") from None


def _time_zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(f"no time zone is called {name!r}, as Europe/Berlin is") from None


def _api_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not text or not text.isascii() or any(c.isspace() for c in text):
        raise ValueError("an API key has no blanks and only ASCII characters")
    return key


def _webhook(url: SecretStr) -> SecretStr:
    webhook(url.get_secret_value())
    return url


Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# scheduler/scripts/lib/lines.lua has the reason.
Weight = Annotated[float, Field(ge=0.001, le=1000)]
# More than a million is a slip, and would not be counted exactly.
Dollars = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]


class Limits(BaseModel):
    """What one API key may use; None: not known.

    Attributes:
        rpm: requests per minute.
        itpm: input tokens per minute.
        otpm: output tokens per minute.
        rpd, itpd, otpd: the same per day, from midnight to midnight.
        concurrency: calls in flight.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rpm: Positive | None = None
    itpm: Positive | None = None
    otpm: Positive | None = None
    rpd: Positive | None = None
    itpd: Positive | None = None
    otpd: Positive | None = None
    concurrency: Positive | None = None


class LaneFields(BaseModel):
    """The fields of one lane that can be set: all but name and priority, the wire format."""

    # None says "not set"; only what was set is applied.
    capacity: Positive | None = None
    submit_wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    deadline: Annotated[Seconds | None, BeforeValidator(_none_word)] = None
    call_timeout: Seconds | None = None
    floor: Fraction | None = None
    share: Fraction | None = None
    boost_after: Annotated[Seconds | None, BeforeValidator(_none_word)] = None
    attempts: Positive | None = None
    prompt_caches: bool | None = None
    usd_per_day: Annotated[Dollars | None, BeforeValidator(_none_word)] = None

    def applied_to(self, lane: Lane) -> Lane:
        """Return the lane with what was set."""
        return dataclasses.replace(lane, **self.model_dump(exclude_unset=True))


class EzaiFields(Limits):
    """``EZAI_…``: the API, and what every key may use for models that no pattern in `limits` matches."""

    api_key: ApiKey | None = None
    api_key_critical: ApiKey | None = None
    api_key_normal: ApiKey | None = None
    api_key_batch: ApiKey | None = None
    base_url: Annotated[str, AfterValidator(api_root)] = DEFAULT_BASE_URL
    limits: Annotated[dict[str, Limits], BeforeValidator(_json)] = Field(default_factory=dict)
    prices: Annotated[dict[str, Price], BeforeValidator(_json)] = Field(default_factory=dict)
    # Who is told that most of a cap is spent. Its address is a secret to many services.
    usd_webhook: Annotated[SecretStr, AfterValidator(_webhook)] | None = None
    # What all calls may cost in a day; the most important lane's are counted and not stopped.
    usd_per_day: Annotated[Dollars | None, BeforeValidator(_none_word)] = None


class CeleryFields(BaseModel):
    """``CELERY_…``, as far as the lanes read it."""

    broker_url: Annotated[str, AfterValidator(broker_address)] | None = None
    # A URL, an alias or a class. Whether there is such a backend is not asked: looking for it would import it, and
    # django-db's models must not be imported before Django is set up.
    result_backend: Any = None


class LanesFields(BaseModel):
    """``LANES_<LANE>_<FIELD>``, and what is said of all lanes."""

    critical: LaneFields = Field(default_factory=LaneFields)
    normal: LaneFields = Field(default_factory=LaneFields)
    batch: LaneFields = Field(default_factory=LaneFields)
    # Tenant -> how much more than another's its jobs count; one that is not named has 1.
    tenant_weights: Annotated[dict[str, Weight], BeforeValidator(_json)] = Field(default_factory=dict)
    # Tenant, or "*" for each that is not named -> dollars that its calls may cost in a day.
    tenant_usd_per_day: Annotated[dict[str, Dollars], BeforeValidator(_json)] = Field(default_factory=dict)
    # Where days end at midnight.
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"


class Fields(BaseModel):
    """Everything that can be set, by its place."""

    celery: CeleryFields = Field(default_factory=CeleryFields)
    ezai: EzaiFields = Field(default_factory=EzaiFields)
    lanes: LanesFields = Field(default_factory=LanesFields)


#: None is a value of these, "no limit"; of all others it says that nothing is set.
NULLABLE = frozenset({"deadline", "boost_after", "usd_per_day"})


@cache
def paths() -> Mapping[str, Path]:
    """Return the name of each variable of ours, and the place of its value."""
    found: dict[str, Path] = {f"EZAI_{field.upper()}": ("ezai", field) for field in EzaiFields.model_fields}
    for lane in LANES:
        for field in LaneFields.model_fields:
            found[f"LANES_{lane.name.upper()}_{field.upper()}"] = ("lanes", lane.name, field)
    for field in ("tenant_weights", "tenant_usd_per_day", "time_zone"):
        found[f"LANES_{field.upper()}"] = ("lanes", field)
    return found


def is_ours(name: str) -> bool:
    """Whether a name is one of our variables, or a misspelling of one.

    Anything that begins with a lane's name is: ``LANES_BATCH_PRIORITY`` means our batch. What Kubernetes makes of a
    Service's name is not, and neither is a name that merely begins like ours, as EZAI_TEAM_DASHBOARD_URL.
    """
    prefix, _, rest = name.partition("_")
    if prefix not in {"EZAI", "LANES"} or not rest:
        return False
    if name in paths():
        return True
    if _is_of_a_service(rest):
        return False
    return _names_a_lane(prefix, rest) or bool(_nearest(prefix, rest, NEAR))


def nearest(name: str) -> str:
    """Return the variable of ours that a misspelt name is nearest to."""
    prefix, _, rest = name.partition("_")
    return f"{prefix}_{_nearest(prefix, rest, 0)}"


def closest(word: str, words: Iterable[str]) -> str:
    """Return the nearest of some words."""
    return difflib.get_close_matches(word, words, n=1, cutoff=0)[0]


def _is_of_a_service(rest: str) -> bool:
    """Whether Kubernetes made a name for the Service ``lanes`` or ``lanes-…``; `rest` is what follows LANES_."""
    words = rest.split("_")
    return any(_OF_A_SERVICE.fullmatch("_".join(words[start:])) for start in range(len(words)))


def _names_a_lane(prefix: str, rest: str) -> bool:
    return prefix == "LANES" and rest.partition("_")[0].lower() in {lane.name for lane in LANES}


def _nearest(prefix: str, rest: str, cutoff: float) -> str | None:
    """Compare what follows the prefix: shared by all, it would make every name near."""
    known = [name.partition("_")[2] for name in paths() if name.startswith(f"{prefix}_")]
    return next(iter(difflib.get_close_matches(rest, known, n=1, cutoff=cutoff)), None)

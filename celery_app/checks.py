"""What may be wrong with the lanes of an application: its settings, its broker, what serves it, its API."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from packaging.requirements import Requirement
from redis.exceptions import RedisError

from celery_app.budget.levels import shown_name
from celery_app.connections.redis_client import broker_errors, heartbeat_client, shown_url
from celery_app.connections.urls import shown
from celery_app.errors import InvalidSettings, LanesError
from celery_app.metrics.look import look
from celery_app.metrics.reasons import lane_reasons
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from celery_app.metrics.look import LaneLook
    from celery_app.metrics.spent import Spent
    from celery_app.settings import Settings

#: The oldest Redis whose commands the scripts use; every Valkey is newer.
OLDEST_REDIS = (6, 2)

#: Our own distribution, and those whose versions matter.
_OURS, _PACKAGES = "ezai-lanes", ("celery", "kombu", "redis")

#: Part of a server's memory from which on it is nearly full.
_NEARLY_FULL = 0.9

#: Where Flower is by default, and seconds that it gets to answer.
_FLOWER_PORT, _FLOWER_S = 5555, 1.0

#: Seconds of figures that a look reads; none of them is shown.
_WINDOW = 60.0


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        what: was looked at, in a word or two.
        level: ``fail`` is what keeps the lanes from working, ``warn`` what an operator ought to know.
        words: what was found.
        advice: what to do; empty: nothing.
    """

    what: str
    level: Literal["ok", "warn", "fail"]
    words: str
    advice: str = ""


def check(app: Any, command: str) -> Iterator[Finding]:
    """Look at all of it, but for the API; what depends on something that has failed is left out.

    Args:
        app: a Celery application with lanes.
        command: how the lanes' commands begin: ``celery -A proj``.
    """
    yield from _versions()
    yield from _flower()
    try:
        settings = settings_of(app)
        settings.check_broker()
        app.amqp.lane_connection()  # says what is wrong with the broker's address
    except InvalidSettings as exc:
        yield from (Finding("settings", "fail", each, "mend it where it is set") for each in exc.problems.split("; "))
        return
    yield from _settings(settings)
    try:
        yield from _broker(app)
        yield from _lanes(app, command)
    except LanesError as exc:
        yield Finding("broker", "fail", str(exc), "start Redis, or mend CELERY_BROKER_URL")
    except RedisError as exc:
        yield Finding("broker", "fail", f"it refuses a command: {exc}", "docs/operations.md has the user's permissions")


def _versions() -> Iterator[Finding]:
    try:
        wanted = {each.name: each for each in map(Requirement, requires(_OURS) or ()) if not each.marker}
        yield Finding("version", "ok", f"{_OURS} {version(_OURS)}")
    except PackageNotFoundError:
        wanted = {}  # a folder on the path, and no installed package
    for name in _PACKAGES:
        found, need = version(name), wanted.get(name)
        if need is None or need.specifier.contains(found, prereleases=True):
            yield Finding("version", "ok", f"{name} {found}")
        else:
            yield Finding("version", "fail", f"{name} {found}, not {need.specifier}", f"pip install '{need}'")


def _settings(settings: Settings) -> Iterator[Finding]:
    without = [lane.name for lane in settings.lanes if settings.api_key(lane) is None]
    if without:
        yield Finding("settings", "warn", f"no API key for {', '.join(without)}", "workers need EZAI_API_KEY")
    else:
        yield Finding("settings", "ok", f"all in order, a key for each lane, API at {shown(settings.base_url)}")
    if settings.prices:
        words = f"for models like {', '.join(settings.prices)}; days end at midnight, {settings.time_zone}"
        yield Finding("prices", "ok", words)


def _broker(app: Any) -> Iterator[Finding]:
    client = heartbeat_client(app)
    with broker_errors(app):
        info: dict[str, Any] = client.info()
        saves = _saves(client)
    yield _server(info, shown_url(app))
    yield from _memory(info)
    yield _persistence(info, saves)
    yield from _replicas(info)


def _server(info: dict[str, Any], url: str) -> Finding:
    if "valkey_version" in info:
        return Finding("broker", "ok", f"Valkey {info['valkey_version']} at {url}")
    found = str(info.get("redis_version", "0"))
    words = f"Redis {found} at {url}"
    if tuple(int(part) for part in found.split(".")[:2] if part.isdecimal()) < OLDEST_REDIS:
        return Finding("broker", "fail", words, "the lanes need Redis 6.2, or Valkey")
    return Finding("broker", "ok", words)


def _memory(info: dict[str, Any]) -> Iterator[Finding]:
    policy, most, used = (
        str(info.get("maxmemory_policy", "unknown")),
        int(info.get("maxmemory", 0)),
        info["used_memory"],
    )
    if policy == "noeviction":
        yield Finding("memory", "ok", "maxmemory-policy noeviction")
    else:
        advice = "redis-cli CONFIG SET maxmemory-policy noeviction; and in redis.conf"
        yield Finding("memory", "fail", f"maxmemory-policy {policy}: a full server drops jobs", advice)
    if most and used > _NEARLY_FULL * most:
        yield Finding(
            "memory", "warn", f"{used / most:.0%} of maxmemory are used", "give it memory, or drop dead letters"
        )


def _replicas(info: dict[str, Any]) -> Iterator[Finding]:
    """INFO has how many replicas are in step only where a master without them takes no writes."""
    if not info.get("connected_slaves"):
        return
    if "min_slaves_good_slaves" in info:
        yield Finding("replicas", "ok", "a master without a replica takes no writes")
    else:
        advice = "redis-cli CONFIG SET min-replicas-to-write 1, on all of them; and in redis.conf"
        yield Finding("replicas", "warn", "a master that was replaced goes on taking jobs, and loses them", advice)


def _saves(client: Redis) -> bool | None:
    """Return whether the server takes snapshots; None: it does not say, as managed ones do not."""
    try:
        told: Any = client.config_get("save")
    except RedisError:
        return None
    return bool(told.get("save"))


def _persistence(info: dict[str, Any], saves: bool | None) -> Finding:
    if "err" in {info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")}:
        return Finding("persistence", "fail", "the last write to its disk failed", "look at its log, and at its disk")
    if info.get("aof_enabled"):
        return Finding("persistence", "ok", "append-only file")
    if saves is None:
        return Finding(
            "persistence", "warn", "no append-only file; whether it takes snapshots is not told", "ask its host"
        )
    if saves:
        return Finding("persistence", "warn", "snapshots: a crash loses the last minutes' jobs", "set appendonly yes")
    return Finding("persistence", "warn", "none: a restart loses all that is queued", "set appendonly yes")


def _lanes(app: Any, command: str) -> Iterator[Finding]:
    found = look(app, _WINDOW, _WINDOW)
    yield from _prices(found.spent)
    for name, lane in found.lanes.items():
        yield _served(name, lane, command)
        for reason in lane_reasons(found, name):
            if reason.kind in {"account", "shut", "paused", "cap"}:
                level: Literal["warn", "fail"] = "fail" if reason.kind == "account" else "warn"
                yield Finding(name, level, f"waits for {reason.words}", f"{command} lanes why {name}")
        if lane.place.dead:
            advice = f"{command} lanes dead list --lane {name}"
            yield Finding(name, "warn", f"{lane.place.dead:,} dead letters", advice)


def _prices(spent: Spent | None) -> Iterator[Finding]:
    models = sorted(map(shown_name, spent.unpriced)) if spent is not None else []
    if models:
        words = f"none for {', '.join(models)}, called today: what is spent is not known"
        yield Finding("prices", "warn", words, "add a pattern to EZAI_PRICES")


def _served(name: str, lane: LaneLook, command: str) -> Finding:
    if lane.workers:
        return Finding(name, "ok", f"{lane.workers} worker{'s'[: lane.workers > 1]}")
    jobs = lane.place.depth + lane.place.returning
    advice = f"start one: {command} worker -Q {name} -n {name}@%h -c 20"
    return Finding(name, "fail" if jobs else "warn", f"no worker serves it, {jobs:,} jobs wait", advice)


def _flower() -> Iterator[Finding]:
    """Ask the Flower of this machine, if there is one, as a stranger would."""
    port = os.environ.get("FLOWER_PORT", "")
    url = f"http://127.0.0.1:{int(port) if port.isdecimal() else _FLOWER_PORT}/"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=_FLOWER_S) as answer:
            if b"Flower" in answer.read(10_000):
                advice = "start it with --basic-auth=<name>:<password> --address=127.0.0.1"
                yield Finding("Flower", "warn", f"{url} needs no password: whoever reaches it may stop workers", advice)
    except urllib.error.HTTPError as exc:
        exc.close()
        if exc.code == 401 and "Tornado" in exc.headers.get("Server", ""):  # noqa: PLR2004 - HTTP's own number
            yield Finding("Flower", "ok", f"{url} wants a password")
    except (OSError, ValueError, HTTPException):
        return  # there is none, or it is no Flower

"""Where the broker and the API are: which URLs the lanes can use, and what is said of any other."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from kombu.transport import TRANSPORT_ALIASES

from celery_app.connections.urls import SENTINEL

DEFAULT_BROKER_URL = "redis://localhost:6379/0"

#: How a project says that it keeps no results.
NO_BACKEND = (None, "", "disabled", "disabled://")
DEFAULT_BASE_URL = "https://ezaiapi.com"

#: Redis, Redis over TLS and on a socket in the file system, the same by Valkey's name, and Sentinel.
BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "valkey", "valkeys", "valkey+socket", "sentinel")

#: What may follow a ``?``: these, and all that begins with ``ssl_``. A socket takes any of redis-py's parameters.
_PARAMETERS = frozenset({"connect_timeout", "credential_provider", "heartbeat"})
_SENTINELS_PARAMETERS = _PARAMETERS | {"master_name"}

#: kombu's broker within one process: enough for tests that run their tasks eagerly, as nothing is sent.
MEMORY = "memory"

#: Schemes by which nobody knows the broker.
_KNOWN_AS = {"amqp": "RabbitMQ", "amqps": "RabbitMQ", "pyamqp": "RabbitMQ", "librabbitmq": "RabbitMQ", "sqs": "SQS"}

#: The SDK appends ``/v1/messages`` by itself. A host may be named v1, too.
_API_PATH = re.compile(r"(?<![:/])(/+v1(/+messages)?)?/*$")


def broker_address(url: str) -> str:
    """Return a broker's URL, or several that are joined by ``;``, if the lanes can use it, or if it is ``memory://``.

    Raises:
        ValueError: says what is wrong, without the URL: there may be a password in it.
    """
    url = url.strip()
    first, *others = url.split(";")
    if scheme_of(first) != MEMORY:
        _check_scheme(first)
    # Sentinel's others may leave out what they have in common with the first.
    whole = [first, *(other if "://" in other else f"{scheme_of(first)}://{other}" for other in others)]
    for each in whole:
        _check_address(each)
    if scheme_of(first) == SENTINEL and len({*filter(None, map(_database, whole))}) > 1:
        raise ValueError("all Sentinels lead to one master, so their URLs must name the same database")
    return url


def scheme_of(url: str) -> str:
    """Return a URL's scheme, in small letters."""
    return urlsplit(url).scheme


def _check_scheme(url: str) -> None:
    scheme = scheme_of(url)
    if scheme in BROKER_SCHEMES:
        return
    # Only a name that kombu knows: what stands before the colon may be anything, a password, too.
    known = {name.lower() for name in TRANSPORT_ALIASES}
    what = scheme if "://" in url and scheme.partition("+")[0] in known else ""
    name = f" ({_KNOWN_AS[what]})" if what in _KNOWN_AS else ""
    cannot = f" and cannot use {what}://{name}" if what else ""
    raise ValueError(f"the lanes need Redis or Valkey{cannot}; start one and name it here, as in {DEFAULT_BROKER_URL}")


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    _check_port(url)
    if parts.scheme == MEMORY:
        return
    _check_scheme(url)
    if parts.scheme.endswith("+socket"):
        return
    database = _database(url)
    if database and not database.isdigit():
        raise ValueError("the database, which follows the port's slash, must be a number")
    allowed = _SENTINELS_PARAMETERS if parts.scheme == SENTINEL else _PARAMETERS
    names = [name for name, _ in parse_qsl(parts.query)]
    if not all(name in allowed or name.startswith("ssl_") for name in names):
        # Not which: it may be a part of a password.
        raise ValueError(f"what follows the ? may only be ssl_… or {', '.join(sorted(allowed))}")


def _database(url: str) -> str:
    return urlsplit(url).path.strip("/")


def _check_port(url: str) -> None:
    """Raise in our words: those of urllib would repeat the port, and with it a password that holds a slash."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError(
            "the port must be a number up to 65535; a password needs its / @ : # written as %2F …"
        ) from None


def api_root(url: str) -> str:
    """Return the root of a Messages API, whether or not ``/v1`` or ``/v1/messages`` was written behind it.

    Raises:
        ValueError: says what is wrong, without the URL.
    """
    url = url.strip()
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"must be an http(s) URL, as in {DEFAULT_BASE_URL}")
    _check_port(url)
    return _API_PATH.sub("", url)

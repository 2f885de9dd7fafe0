"""URLs of a broker or a result backend as our documentation writes them, in the words of kombu and Celery."""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from kombu.utils.url import maybe_sanitize_url

#: Valkey speaks Redis' protocol, but kombu and Celery do not know its name.
_SCHEMES = {"valkey": "redis", "valkeys": "rediss", "valkey+socket": "redis+socket"}

SENTINEL = "sentinel"

#: What a Sentinel is asked for; kombu and Celery take it as a transport option only.
MASTER = "master_name"

#: Between several URLs in one.
SEPARATOR = ";"


class Understood(NamedTuple):
    """A URL, or several that are joined, in kombu's words.

    Attributes:
        url: with whatever is said there.
        master: the name of Sentinel's master; None: the URL does not say.
    """

    url: str
    master: str | None


def understood(url: str) -> Understood:
    """Translate a URL, or several that are joined by ``;``."""
    chunks = url.strip().split(SEPARATOR)
    if urlsplit(chunks[0]).scheme == SENTINEL:
        return _sentinels(chunks)
    return Understood(SEPARATOR.join(map(_renamed, chunks)), None)


def joined(urls: Any) -> str:
    """Return several URLs, as Celery's configuration may list them, in one."""
    return urls if isinstance(urls, str) else SEPARATOR.join(map(str, urls or ()))


def verified(url: str) -> dict[str, Any]:
    """Return the encryption that a URL asks for: ``rediss://`` is a verified certificate unless it says otherwise."""
    secure = url.startswith(("rediss://", "valkeys://")) and "ssl_" not in url
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED} if secure else {}


def shown(url: str, mask: str = "**") -> str:
    """Return a URL, or several, without passwords."""
    return SEPARATOR.join(_sanitized(chunk, mask) for chunk in understood(url).url.split(SEPARATOR))


def _sanitized(url: str, mask: str) -> str:
    if "://" in url:
        return str(maybe_sanitize_url(url, mask))
    before, at, host = url.rpartition("@")
    return f"{mask}{at}{host}" if before else url


def _renamed(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{_SCHEMES.get(scheme, scheme)}{separator}{rest}"


def _sentinels(chunks: list[str]) -> Understood:
    """Complete each of several Sentinels by what is said once: kombu connects by any of them, and forgets the others.

    All lead to one master, which has one database and one password. Where the URL names the master, they may stand at
    any Sentinel. Otherwise the URL is one that kombu understands, too, and means what its first Sentinel says.
    """
    urls = [urlsplit(chunk if "://" in chunk else f"{SENTINEL}://{chunk}") for chunk in chunks]
    queries = [dict(parse_qsl(each.query)) for each in urls]
    master = next(filter(None, [query.pop(MASTER, None) for query in queries]), None)
    if master is None and len(urls) == 1:
        return Understood(chunks[0], None)
    telling = range(len(urls)) if master else range(1)
    user = next(filter(None, [urls[n].netloc.rpartition("@")[0] for n in telling]), "")
    path = next((urls[n].path for n in telling if urls[n].path.strip("/")), "")
    query = {name: value for n in reversed(telling) for name, value in queries[n].items()}
    alike = {"path": path, "query": urlencode(query)}
    hosts = [each.netloc.rpartition("@")[2] for each in urls]
    whole = [
        urlunsplit(each._replace(netloc=f"{user}@{host}" if user else host, **alike))
        for each, host in zip(urls, hosts, strict=True)
    ]
    return Understood(SEPARATOR.join(whole), master)

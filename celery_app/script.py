"""A Lua script: loaded once as package data, run by its digest."""

from __future__ import annotations

import hashlib
import re
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import NoScriptError

from celery_app.lanes import LANES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redis import Redis
    from redis.client import Pipeline

    Keys = Iterable[str | bytes]
    Args = Iterable[str | bytes | int | float]


#: The lanes' queues, for scripts that treat other queues as kombu does.
_LANES = f"local LANES = {{{', '.join(f'{lane.name} = true' for lane in LANES)}}}"


class Script:
    """One script, from ``<package>/scripts/<name>.lua``; make one at import and share it between threads.

    Attributes:
        name: the file's name without its suffix.
        source: the script's text, behind that of the libraries it uses.
        sha: its SHA-1 in hex, by which Redis knows it.
    """

    __slots__ = ("name", "sha", "source")

    def __init__(self, name: str, *libraries: str, package: str) -> None:
        """Read the script.

        Args:
            name: the file's name without its suffix.
            libraries: the same of files whose functions the script uses, each after those that it uses itself.
            package: where they lie.

        Raises:
            FileNotFoundError: if the package came without one of them.
        """
        folder = files(package).joinpath("scripts")
        self.name = name
        parts = [folder.joinpath(f"{part}.lua").read_text("utf-8") for part in (*libraries, name)]
        self.source = "\n".join([_LANES, *_joined(parts)])
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: Redis, keys: Keys = (), args: Args = ()) -> Any:
        """Run the script in one round trip; in two, where the server does not know it yet.

        Args:
            client: one that puts no prefix before the keys.
            keys: KEYS, as the script's header names them.
            args: ARGV, likewise.

        Returns:
            The script's reply.

        Raises:
            redis.exceptions.RedisError: if the server is away or the script failed.
        """
        keys = tuple(keys)
        call = (len(keys), *keys, *args)
        execute: Any = client.execute_command  # redis-py leaves it untyped
        try:
            return execute("EVALSHA", self.sha, *call)
        except NoScriptError:
            # The server is new or was restarted; it keeps what EVAL brings.
            return execute("EVAL", self.source, *call)

    def ask(self, connection: Any, keys: Keys, args: Args, timeout: float | None) -> Any:
        """Run the script through a connection of one's own.

        Args:
            connection: of redis-py's, connected.
            keys: KEYS, as the script's header names them.
            args: ARGV, likewise.
            timeout: seconds to wait for the reply at most; None: as long as the connection does.

        Raises:
            redis.exceptions.RedisError: as `run`; a connection that was lost is closed.
        """
        keys = tuple(keys)
        call = (len(keys), *keys, *args)
        read_timeout = _read_timeout(connection.socket_timeout, timeout)
        try:
            connection.send_command("EVALSHA", self.sha, *call)
            return connection.read_response(**read_timeout)
        except NoScriptError:
            connection.send_command("EVAL", self.source, *call)
            return connection.read_response(**read_timeout)

    def add_to(self, pipe: Pipeline, keys: Keys = (), args: Args = ()) -> None:
        """Queue the script on the pipeline of `run_together`."""
        keys = tuple(keys)
        execute: Any = pipe.execute_command
        execute("EVALSHA", self.sha, len(keys), *keys, *args)


def run_together(client: Redis, scripts: Iterable[Script], fill: Callable[[Pipeline], None]) -> list[Any]:
    """Run commands, scripts among them, in one round trip; in two, where the server does not know a script yet.

    Args:
        client: one that puts no prefix before the keys.
        scripts: which ones are among them.
        fill: puts the commands on a pipeline. They do no harm when they are run twice.

    Returns:
        The replies.

    Raises:
        redis.exceptions.RedisError: if the server is away or a script failed.
    """
    with client.pipeline(transaction=False) as pipe:
        fill(pipe)
        try:
            return pipe.execute()
        except NoScriptError:
            sources = [script.source for script in scripts]
            for source in sources:
                pipe.script_load(source)
            fill(pipe)
            return pipe.execute()[len(sources) :]


#: What a library declares for those behind it: ``local function name(…)``, ``local NAME = …``, ``local NAME``.
_DECLARED = re.compile(r"^local (?:function (\w+)|([\w, ]+?))(?=\(| =|$)", re.MULTILINE)


#: A function of a library, with the comment before it.
_FUNCTION = re.compile(r"((?:^--[^\n]*\n)*^local function \w+\(.*?^end\n)", re.MULTILINE | re.DOTALL)


class _Chunk(NamedTuple):
    """A function of a library, or what stands between two of them."""

    text: str
    name: str
    words: frozenset[str]


@cache
def _chunks_of(library: str) -> tuple[_Chunk, ...]:
    """Return a library's chunks, the last one first."""
    texts = [text for text in _FUNCTION.split(library) if text]
    names = (
        re.search(r"^local function (\w+)", text, re.MULTILINE) if _FUNCTION.match(text) else None for text in texts
    )
    chunks = [
        _Chunk(text, name[1] if name else "", frozenset(re.findall(r"\w+", text)))
        for text, name in zip(texts, names, strict=True)
    ]
    return tuple(reversed(chunks))


def _joined(parts: list[str]) -> list[str]:
    """Put a script together.

    Of a library a script gets the functions that it uses: the server builds each anew whenever it runs. Lua allows 200
    local names, so a library keeps to itself what no part behind it uses.
    """
    *libraries, script = parts
    joined, words = [script], set(re.findall(r"\w+", script))
    for library in reversed(libraries):
        behind, needed = set(words), []
        for chunk in _chunks_of(library):
            if not chunk.name or chunk.name in words:
                needed.append(chunk.text)
                words |= chunk.words
        joined.append(_block("".join(reversed(needed)), behind))
    return joined[::-1]


def _block(library: str, words: set[str]) -> str:
    """Return a library as a block that declares outside of it what words behind it name."""
    declared = (re.findall(r"\w+", match[1] or match[2]) for match in _DECLARED.finditer(library))
    shown = {name for names in declared if words.intersection(names) for name in names}
    outside = f"local {', '.join(sorted(shown))}\n" if shown else ""
    return f"{outside}do\n{_DECLARED.sub(partial(_shown, shown), library)}\nend"


def _shown(shown: set[str], match: re.Match[str]) -> str:
    """Return a declaration as an assignment to what was declared outside of the library."""
    if match[1]:
        return match[0].removeprefix("local ") if match[1] in shown else match[0]
    if not shown.intersection(re.findall(r"\w+", match[2])):
        return match[0]
    has_value = match.string.startswith(" =", match.end())
    return match[2] if has_value else ""


def _read_timeout(own: float | None, timeout: float | None) -> dict[str, float]:
    """Return the option of redis-py that makes a reply come sooner than the connection's own timeout."""
    return {} if timeout is None or (own is not None and own <= timeout) else {"timeout": timeout}

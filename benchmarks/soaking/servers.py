"""Two servers, each the other's replica in turn, and the Sentinels that say which of them is the master."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self

from kit.broker_forms import MASTER, sentinels
from kit.server import Server
from kit.waiting import wait_until
from redis import Redis, RedisError

if TYPE_CHECKING:
    from pathlib import Path

#: As docs/operations.md has it, with a journal that is rewritten often enough for hours.
LINES = ("appendfsync everysec", "repl-diskless-sync-delay 0", "auto-aof-rewrite-min-size 16mb")

#: Milliseconds after which a silent master is replaced: longer than it takes to restart it.
DOWN_AFTER_MS = 3_000

#: Seconds for a failover, and for the replica behind it to be there again.
TO_RECOVER = 90.0


class Pair:
    """A context manager; `url` is what workers and clients get."""

    def __init__(self, folder: Path) -> None:
        first = Server(folder / "one", *LINES)
        self.servers = (first, Server(folder / "two", *LINES, f"replicaof 127.0.0.1 {first.port}"))
        self._folder, self._stack = folder, ExitStack()

    def __enter__(self) -> Self:
        for server in self.servers:
            self._stack.enter_context(server)
        watching = sentinels(self._folder / "sentinels", self.servers[0], 3, password=None, down_after_ms=DOWN_AFTER_MS)
        self.watchers = self._stack.enter_context(watching)
        nodes = ";".join(f"sentinel://127.0.0.1:{server.port}" for server in self.watchers)
        self.url = f"{nodes}/0?master_name={MASTER}"
        self.wait_until_well()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask_sentinel(self, *words: str) -> Any:
        """Give the first Sentinel a command about the master."""
        with self.watchers[0].client() as client:
            return client.execute_command("SENTINEL", *words, MASTER)

    @property
    def master(self) -> Server:
        """The server that the Sentinels say is the master."""
        port = int(self.ask_sentinel("GET-MASTER-ADDR-BY-NAME")[1])
        return next(server for server in self.servers if server.port == port)

    def client(self) -> Redis:
        """Return a client of the master as it is now."""
        return self.master.client()

    def wait_until_well(self) -> None:
        """Return once a replica has all that the master has, and all Sentinels agree on both."""
        wait_until(self._is_well, "a master and its replica are in step", TO_RECOVER)

    def _is_well(self) -> bool:
        masters = set()
        with suppress(RedisError):
            for server in self.watchers:
                with server.client() as client:
                    masters.add(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1])
                    (replica,) = client.execute_command("SENTINEL", "REPLICAS", MASTER)
                    if replica["flags"] != "slave" if isinstance(replica, dict) else b"slave" not in replica:
                        return False
            with self.client() as client:
                found: Any = client.info("replication")
            return len(masters) == 1 and found["role"] == "master" and _in_step(found)
        return False


def _in_step(found: dict[str, Any]) -> bool:
    """Say whether a master has one replica that is no more than a moment behind."""
    replica = found.get("slave0", {})
    return replica.get("state") == "online" and found["master_repl_offset"] - replica["offset"] < 1_000_000

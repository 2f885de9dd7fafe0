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
LINES = (
    "appendfsync everysec",
    "auto-aof-rewrite-min-size 16mb",
    "min-replicas-to-write 1",
    "repl-diskless-sync-delay 0",
)

#: Milliseconds after which a silent master is replaced: longer than it takes to restart it.
DOWN_AFTER_MS = 3_000

#: Bytes that a replica may be behind: a moment's.
IN_STEP = 1_000_000

#: Seconds for a failover, and for the replica behind it to be there again.
TO_RECOVER = 240.0


class Pair:
    """A context manager; `url` is what workers and clients get."""

    def __init__(self, folder: Path) -> None:
        first = Server(folder / "one", *LINES)
        self.servers = (first, Server(folder / "two", *LINES, f"replicaof 127.0.0.1 {first.port}"))
        self._folder, self._stack = folder, ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            watching = sentinels(
                self._folder / "sentinels", self.servers[0], 3, password=None, down_after_ms=DOWN_AFTER_MS
            )
            self.watchers = stack.enter_context(watching)
            nodes = ";".join(f"sentinel://127.0.0.1:{server.port}" for server in self.watchers)
            self.url = f"{nodes}/0?master_name={MASTER}"
            self.wait_until_well()
            self._stack = stack.pop_all()
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

    def wait_until_well(self, behind: int = IN_STEP) -> None:
        """Return once a replica has all that the master has but for some bytes, and all Sentinels agree on both."""
        wait_until(lambda: self._is_well(behind), "a master and its replica are in step", TO_RECOVER)

    def _is_well(self, behind: int) -> bool:
        with suppress(RedisError):
            return all(map(self._knows_all, self.watchers)) and _in_step(self.master, behind)
        return False

    def _knows_all(self, watcher: Server) -> bool:
        """Say whether a Sentinel knows the same master as the first one, a live replica, and the other Sentinels."""
        with watcher.client() as client:
            master: Any = client.sentinel_master(MASTER)
            replicas: Any = client.sentinel_slaves(MASTER)
        live = [each for each in replicas if not (each["is_sdown"] or each["is_disconnected"])]
        others = int(master["num-other-sentinels"])
        return bool(live) and master["port"] == self.master.port and others == len(self.watchers) - 1


def _in_step(master: Server, most: int) -> bool:
    """Say whether a master has one replica that is no more than some bytes behind."""
    with master.client() as client:
        found: Any = client.info("replication")
    replica = found.get("slave0", {})
    behind = found["master_repl_offset"] - replica.get("offset", 0)
    return found["role"] == "master" and replica.get("state") == "online" and behind <= most

"""A Redis client whose server tells the time that a test sets.

The budget's scripts ask the server for the time and take it from nobody, so there is no argument to inject it with.
This client changes one line of each script on its way to the server, the one that asks, and leaves the rest as it is:
minutes of a budget pass in a second, and the same way each time.
"""

import hashlib
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

_ASKING = "redis.call('TIME')"
_KEY = "test:clock"
_READING = f"redis.call('HMGET', '{_KEY}', 's', 'us')"
_US_PER_S = 1_000_000

# Any time will do; this one has as many digits as today's.
START_S = 1_800_000_000.0


class ClockedRedis:
    """A client for the budget's scripts, with a clock that stands still until it is set."""

    def __init__(self, client: Redis) -> None:
        """Take a real client of a real server."""
        self.client = client
        self._shas: dict[str, str] = {}
        self._us = round(START_S * _US_PER_S)

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._us / _US_PER_S - START_S

    @now.setter
    def now(self, seconds: float) -> None:
        self._us = round((START_S + seconds) * _US_PER_S)

    def execute_command(self, command: str, *args: Any) -> Any:
        """Do what `Script.run` asks for, at the time that was set."""
        sha = self.script_load(str(args[0])) if command == "EVAL" else str(args[0])
        if sha not in self._shas:
            raise NoScriptError
        with self.client.pipeline(transaction=False) as pipe:
            pipe.hset(_KEY, mapping={"s": self._us // _US_PER_S, "us": self._us % _US_PER_S})
            pipe.execute_command("EVALSHA", self._shas[sha], *args[1:])  # type: ignore[no-untyped-call]
            return pipe.execute()[-1]

    def time(self) -> tuple[int, int]:
        """Tell the time that was set, as the server would."""
        return divmod(round(START_S * _US_PER_S) + round(self.now * _US_PER_S), _US_PER_S)

    def script_load(self, source: str) -> str:
        """Load a script that will read the time that was set; return the digest of its own text."""
        sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        assert source.count(_ASKING) == 1, "the script asks for the time in one place"
        self._shas[sha] = self.client.script_load(source.replace(_ASKING, _READING))
        return sha

"""What the lanes look like, looked at once for all who look at Flower, in a thread, and never waited for long."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from celery_app.errors import LanesError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds for which a look is shown to whoever asks; workers write their figures once a second.
FRESH = 1.0

#: Seconds that a page waits for Redis. A look takes some ms, so a server that needs longer is as good as away.
PATIENCE = 2.0

#: Threads: one looks; the others are for what operators change, and for Redis that stands still meanwhile.
_THREADS = 4

#: What is said of a server that takes connections and gives no answers.
SILENT = f"no answer within {PATIENCE:.0f} s"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """A look.

    Attributes:
        shown: what the last look that succeeded has found; None: none has.
        age_s: seconds since then; None: there was none.
        away_s: seconds for which the broker has been away; None: it is there.
        problem: what is wrong with it; empty: nothing.
    """

    shown: Any
    age_s: float | None
    away_s: float | None
    problem: str


class Watch:
    """Looks when somebody asks. Of one event loop."""

    def __init__(self, look: Callable[[], Any]) -> None:
        """Take what looks, in a thread."""
        self._look = look
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="lanes")
        self._looking: asyncio.Future[Any] | None = None
        self._shown: Any = None
        self._seen_at = self._away_since = 0.0
        self._is_stale = True
        self._problem = ""

    async def seen(self) -> Seen:
        """Return what is there, at most `FRESH` old, within `PATIENCE`; what was there, if the broker is away."""
        if self._looking is None and (self._is_stale or time.monotonic() - self._seen_at > FRESH):
            self._is_stale = False
            self._looking = asyncio.get_running_loop().run_in_executor(self._threads, self._look)
            self._looking.add_done_callback(self._note)
        if self._looking is not None:
            await asyncio.wait([self._looking], timeout=PATIENCE)
            if self._looking is not None:
                self._miss(SILENT)
        now = time.monotonic()
        age_s = None if self._shown is None else now - self._seen_at
        return Seen(self._shown, age_s, now - self._away_since if self._problem else None, self._problem)

    async def run(self, change: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Change something in a thread.

        Raises:
            TimeoutError: Redis has not answered in time; what has begun may be done all the same.
        """
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(self._threads, partial(change, *args, **kwargs))
        try:
            return await asyncio.wait_for(done, PATIENCE)
        finally:
            self._is_stale = True  # whoever has changed something wants to see it

    def _note(self, looking: asyncio.Future[Any]) -> None:
        self._looking = None
        problem = looking.exception()
        if problem is None:
            self._shown, self._seen_at, self._problem = looking.result(), time.monotonic(), ""
        elif isinstance(problem, LanesError):
            self._miss(str(problem))
        else:
            said = f"what it holds cannot be read ({type(problem).__name__})"
            if said != self._problem:
                _logger.error("The lanes cannot be looked at", exc_info=problem)
            self._miss(said)

    def _miss(self, problem: str) -> None:
        if not self._problem:
            self._away_since = time.monotonic()
        self._problem = problem

"""What `lanes top` knows: the last look at the lanes, those before it, and what the operator has chosen."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from celery_app import controls
from celery_app.errors import BrokerUnreachable, LanesError
from celery_app.lanes import LANES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery_app.metrics.overview import Overview

#: Looks that are remembered: as many as the widest sparkline has cells.
_REMEMBERED = 60


class View:
    """One screen's knowledge.

    Attributes:
        seen: the last look, as `Overview.look` returns it; None: there has been none.
        away: why there is none at present; empty: there is.
        selected: name of a lane.
        message: what came of the last key.
    """

    def __init__(self, app: Any, overview: Overview) -> None:
        """Look at nothing yet."""
        self._app, self._overview = app, overview
        self.seen: dict[str, Any] | None = None
        self.away = self.message = ""
        self.selected = LANES[0].name
        self._seen_at = self._away_since = time.monotonic()
        self._past: defaultdict[str, deque[tuple[float, float | None]]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def look(self) -> None:
        """Look at the lanes; with the broker away, note that it is."""
        try:
            self.look_or_raise()
        except BrokerUnreachable as exc:
            if not self.away:
                self._away_since = time.monotonic()
            self.away = str(exc)

    def look_or_raise(self) -> None:
        """Look at the lanes.

        Raises:
            BrokerUnreachable: if no broker answers.
        """
        self.seen = self._overview.look()
        self.away, self._seen_at = "", time.monotonic()
        for name, lane in self.lanes.items():
            self._past[name].append((lane["depth"], lane["wait_now_s"]))

    @property
    def lanes(self) -> dict[str, dict[str, Any]]:
        """The lanes of the last look."""
        lanes: dict[str, dict[str, Any]] = self.seen["lanes"] if self.seen else {}
        return lanes

    @property
    def age_s(self) -> float:
        """Seconds since the last look."""
        return time.monotonic() - self._seen_at

    @property
    def away_s(self) -> float:
        """Seconds since the broker was found away."""
        return time.monotonic() - self._away_since

    @property
    def has_history(self) -> bool:
        """Whether there were several looks."""
        return any(len(past) > 1 for past in self._past.values())

    def depths(self, lane: str) -> list[float | None]:
        """Return the jobs queued, look by look."""
        return [depth for depth, _ in self._past[lane]]

    def waits(self, lane: str) -> list[float | None]:
        """Return the wait of what had just left, in seconds, look by look."""
        return [wait for _, wait in self._past[lane]]

    def press(self, keys: Iterable[str]) -> bool:
        """Do what keys are for; return whether the lanes should be looked at anew."""
        changed = False
        for key in keys:
            self._select(key)
            if key in {"p", "r"}:
                changed = True
                try:
                    self.message = self._pause() if key == "p" else self._resume()
                except (LanesError, RedisError) as exc:
                    self.message = f"that could not be done: {exc}"
        return changed

    def _select(self, key: str) -> None:
        names = [lane.name for lane in LANES]
        at = names.index(self.selected)
        chosen = {"up": at - 1, "down": at + 1} | {str(number): number - 1 for number in range(1, len(names) + 1)}
        if key in chosen:
            self.selected, self.message = names[min(len(names) - 1, max(0, chosen[key]))], ""

    def _pause(self) -> str:
        controls.pause(self._app, self.selected)
        return f"{self.selected} is paused: it starts nothing until r, or `lanes resume {self.selected}`"

    def _resume(self) -> str:
        ended = controls.resume(self._app, self.selected)
        return f"{self.selected} goes on" if ended else f"{self.selected} was not paused"

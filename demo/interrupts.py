"""Interrupts: Ctrl-C, SIGTERM and SIGHUP, which all mean the same to the command."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """The first signal ends the work as a KeyboardInterrupt, a later one hurries the ending."""

    def __init__(self) -> None:
        """Start with none seen."""
        self.seen = False
        self.hurried = False
        self._ending = False

    def __enter__(self) -> Self:
        """Take over the signals, but for those that the command was started to ignore (nohup)."""
        for number in SIGNALS:
            if number is signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        """Ignore further signals: the process is about to exit, and a traceback would be all they achieve."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def begin_ending(self) -> None:
        """From now on a signal only hurries: an exception would cut the clearing up short."""
        self._ending = True

    def check(self) -> None:
        """Raise again what was raised where nobody let it through, in a destructor for instance."""
        if self.seen and not self._ending:
            raise KeyboardInterrupt

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.seen or self._ending:
            self.hurried = True
            return
        self.seen = True
        raise KeyboardInterrupt

"""The terminal of a command that fills the screen: its keys, its size, and how it is left behind."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from rich.control import Control
from rich.screen import Screen

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Signals whose usual end would leave the terminal as it is.
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

#: Bytes read at once: more than a person types.
_MOST_READ = 1_024

#: An arrow, in either of the ways that terminals have; or any byte.
_KEY = re.compile(rb"\x1b[\[O](?P<arrow>[A-D])|(?P<other>.)", re.DOTALL)
_ARROWS = {b"A": "up", b"B": "down", b"C": "right", b"D": "left"}

#: The beginning of an arrow; over a slow line the rest comes later.
_BEGUN = re.compile(rb"\x1b[\[O]?\Z")


class Terminal:
    """A context manager, of the main thread: within it the terminal shows our screen, after it what was there before.

    SIGTERM, SIGHUP, SIGQUIT, an exception and Ctrl-Z leave the terminal as it was, too; after `fg` the screen is back.
    """

    def __init__(self, console: Console) -> None:
        """Take the console whose terminal it is."""
        self._console = console
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._begun, self._shall_stop = b"", False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Take the terminal over."""
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)
        self._fd_before = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._modes = termios.tcgetattr(self._keys) if self._keys is not None else None
        handlers: dict[signal.Signals, Any] = {
            # A script in the background starts its commands with SIGINT ignored; one that only ends by it must not.
            **dict.fromkeys(_ENDS, _end),
            signal.SIGTSTP: self._ask_to_stop,
            signal.SIGWINCH: lambda *_: None,
        }
        self._before = {each: signal.getsignal(each) for each in handlers}
        try:
            for each, handler in handlers.items():
                signal.signal(each, handler)
            self._take()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it as it was, whatever signal of somebody impatient comes meanwhile."""
        try:
            _ignore_ends()
        finally:
            self._leave()
            signal.set_wakeup_fd(self._fd_before)
            os.close(self._woken)
            os.close(self._wake)
            for each, handler in self._before.items():
                signal.signal(each, handler)

    @property
    def size(self) -> tuple[int, int]:
        """Cells of a line, and lines; by the terminal, whatever the variables of the environment say."""
        with suppress(OSError):
            columns, lines = os.get_terminal_size(self._console.file.fileno())
            if columns and lines:
                return columns, lines
        return self._console.size

    def show(self, screen: RenderableType) -> None:
        """Fill the screen."""
        self._console.size = self.size
        self._console.control(Control.home())
        self._console.print(Screen(screen), end="")

    def wait(self, seconds: float) -> list[str] | None:
        """Wait for keys, a new size, or the time to be over.

        Returns:
            The keys: a character each, or ``up``, ``down``, ``left``, ``right``; None: there is nobody any more.
        """
        places = [self._woken, *([] if self._keys is None else [self._keys])]
        ready, _, _ = select.select(places, (), (), max(0.0, seconds))
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, _MOST_READ)
        if self._shall_stop:
            self._stop()
            return []
        return self._read() if self._keys in ready else []

    def _read(self) -> list[str] | None:
        try:
            read = os.read(self._keys or 0, _MOST_READ)
        except OSError:
            return None
        typed = self._begun + read
        begun = _BEGUN.search(typed)
        self._begun = begun[0] if begun else b""
        pressed = _KEY.finditer(typed.removesuffix(self._begun))
        keys = [_ARROWS[key["arrow"]] if key["arrow"] else key["other"].decode("latin-1") for key in pressed]
        return keys if read else None

    def _take(self) -> None:
        if self._keys is not None:
            tty.setcbreak(self._keys)
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)

    def _leave(self) -> None:
        """The terminal may be gone."""
        with suppress(OSError):
            self._console.show_cursor(True)
            self._console.set_alt_screen(False)
        if self._modes is not None and self._keys is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._keys, termios.TCSANOW, self._modes)

    def _ask_to_stop(self, *_: object) -> None:
        """Ctrl-Z, perhaps in the middle of a frame."""
        self._shall_stop = True

    def _stop(self) -> None:
        self._shall_stop = False
        self._leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # we stand still here, until SIGCONT
        signal.signal(signal.SIGTSTP, self._ask_to_stop)
        self._take()


def _ignore_ends() -> None:
    for each in _ENDS:
        signal.signal(each, signal.SIG_IGN)


def _end(number: int, _frame: object) -> None:
    """End once: a second signal would end the leaving."""
    _ignore_ends()
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

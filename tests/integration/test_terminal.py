"""The terminal of a command that fills the screen, while somebody impatient ends it."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from screen import OnScreen

#: A screen that gets each of the signals once more in the midst of its leaving.
IMPATIENT = """
import os, signal, sys, time
from rich.console import Console
from celery_app.cli.terminal import Terminal

class Impatient(Terminal):
    def _leave(self):
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            os.kill(os.getpid(), each)
        super()._leave()

with Impatient(Console()):
    if int(sys.argv[1]):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code"), [(0, 0), (signal.SIGTERM, 143)])
def test_a_second_signal_does_not_leave_the_terminal_broken(number: int, code: int) -> None:
    """Whether a key or a signal has ended it, another signal meanwhile changes nothing."""
    with OnScreen([sys.executable, "-c", IMPATIENT, str(int(number))], {"PATH": os.environ["PATH"]}) as screen:
        assert screen.ended() == code
        assert screen.is_restored

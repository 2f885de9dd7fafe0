"""What tests ask about processes that are not their own children."""

import subprocess
from collections.abc import Iterable


def running(pids: Iterable[int]) -> set[int]:
    """Return which processes are there; one that nobody has collected yet (a zombie) is not."""
    return {pid for pid in pids if _state(pid) not in {"", "Z"}}


def _state(pid: int) -> str:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return found.stdout.strip()[:1]

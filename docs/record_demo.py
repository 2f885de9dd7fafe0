"""Run the demo, and draw its terminal as the picture that README.md shows: `make picture`."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from demo.findings import report

#: Columns: README's text is about as wide on a page.
WIDTH = 112
DEMO = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", "demo", "--json"]


def main(path: Path) -> None:
    """Draw what `make demo` leaves on a terminal."""
    run = subprocess.run(DEMO, stdout=subprocess.PIPE, check=True)
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True, highlight=False)
    console.print(Text("$ make demo", style="bold green"))
    console.print(report(json.loads(run.stdout)))
    console.save_svg(str(path), title="make demo", theme=MONOKAI, unique_id="demo")


if __name__ == "__main__":
    main(Path(__file__).with_name("demo.svg"))

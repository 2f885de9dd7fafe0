"""``lanes demo``: a batch and a chat side by side on this machine, and how long the chat had to wait."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace

import click
from rich.console import Console

from celery_app.settings import Settings
from demo.documents import package_documents
from demo.findings import findings, progress, report
from demo.processes import interruptible
from demo.run import Run
from demo.stack import FLOWER_USER, Stack

DOCUMENTS = 200
#: Half an hour for the simulated API; more would be a load test.
MOST_DOCUMENTS = 10_000
#: Calls of about a second on 6 slots: 200 documents take half a minute, and for half of it 100 are queued or more.
SLOTS = (4, 6)
BEHAVIOUR = {"latency": 1.0, "jitter": 0.3}


@click.command(context_settings={"show_default": True})
@click.option("--count", type=click.IntRange(1, MOST_DOCUMENTS), default=DOCUMENTS, help="Documents at most.")
@click.option("--flower/--no-flower", default=True, help="Whether to start Flower.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def demo(count: int, flower: bool, as_json: bool) -> None:
    """Classify documents in `batch` while somebody chats in `critical`, and show who waited how long.

    The documents are the READMEs of the Python packages installed here. The API is a simulated one, whatever key you
    have; without CELERY_BROKER_URL the broker is an embedded one. All is gone afterwards.
    """
    # The demo waits for its results, so they go where it can be sure of them: to the broker.
    os.environ.pop("CELERY_RESULT_BACKEND", None)
    settings = replace(Settings.from_environment(), api_keys={})
    console, port = Console(stderr=True), 0 if flower else None
    with interruptible() as interrupts:
        with Stack(settings, interrupts, console, slots=SLOTS, flower_port=port, behaviour=BEHAVIOUR) as stack:
            if stack.flower and console.is_terminal:
                login = f"user {FLOWER_USER}, password {stack.flower.password}"
                click.echo(f"Flower, for as long as this runs: {stack.flower.url}  {login}", err=True)
            run, begun = Run(stack, package_documents(count)), time.monotonic()
            with console.status("") as status:
                for _ in run.until_answered():
                    if console.is_terminal:
                        status.update(progress(run, stack.app))
            calls = stack.simulator.calls() if stack.simulator else []
            found = findings(run, calls, time.monotonic() - begun)
        if as_json:
            click.echo(json.dumps(found))
        else:
            Console(highlight=False).print(report(found))
    sys.exit(1 if found["errors"] else 0)

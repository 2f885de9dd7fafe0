"""``lanes demo``: a batch and a chat side by side on this machine, and how long the chat had to wait."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from celery_app.settings import Settings
from demo import api, flower
from demo.commands.interrupted import interruptible
from demo.documents import documents_in, package_documents
from demo.errors import ConfirmationNeeded
from demo.findings import findings, lane_stats
from demo.lanes_progress import LanesProgress
from demo.model import MODEL
from demo.report import print_report
from demo.requests import ANSWER_TOKENS, CLASS_TOKENS, SUMMARY_TOKENS
from demo.run import MOST_QUESTIONS, SUMMARIES, Run
from demo.stack import Plan, Stack
from demo.steps import Steps

if TYPE_CHECKING:
    from demo.interrupts import Interrupts

DOCUMENTS = 200
#: Half an hour for the simulated API; more would be a load test.
MOST_DOCUMENTS = 10_000
#: Calls of about a second on 6 slots: 200 documents take half a minute, and for half of it 100 are queued or more.
CRITICAL_SLOTS, SHARED_SLOTS = 4, 6
BEHAVIOUR = {"latency": 1.0, "jitter": 0.3}


@click.command()
@click.option(
    "--documents", "path", type=click.Path(path_type=Path), help="Text lines, or JSON lines with a text field."
)
@click.option(
    "--count", type=click.IntRange(1, MOST_DOCUMENTS), default=DOCUMENTS, show_default=True, help="Documents at most."
)
@click.option("--model", default=MODEL, show_default=True, help="Of all requests.")
@click.option("--flower/--no-flower", "with_flower", default=True, help="Whether to start Flower.", show_default=True)
@click.option("--flower-port", type=click.IntRange(0, 65_535), default=0, help="By default a free one.")
@click.option("--yes", is_flag=True, help="Do not ask before calls that cost money.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def demo(path: Path | None, count: int, model: str, yes: bool, as_json: bool, **flower_options: Any) -> None:
    """Classify documents in `batch` while somebody chats in `critical`, and show who waited how long.

    The documents are the READMEs of the Python packages installed here, unless you name a file. Without EZAI_API_KEY
    the API is a simulated one, without CELERY_BROKER_URL the broker is an embedded one; all is gone afterwards.
    """
    # The demo waits for its results, so they go where it can be sure of them: to the broker.
    os.environ.pop("CELERY_RESULT_BACKEND", None)
    with interruptible() as interrupts:
        documents = documents_in(path, count) if path else package_documents(count)
        _prepare(documents, yes)
        port = flower_options["flower_port"] if flower_options["with_flower"] else None
        found = _run(Plan(CRITICAL_SLOTS, SHARED_SLOTS, port, BEHAVIOUR), documents, model, interrupts)
        if as_json:
            click.echo(json.dumps({"model": model, **found}))
        else:
            print_report(found)
    sys.exit(1 if found["errors"] else 0)


def _prepare(documents: list[str], yes: bool) -> None:
    """Check a real key, and ask before it is used."""
    settings = Settings.from_environment()
    if not api.is_real(settings):
        return
    api.check_keys(settings)
    summaries = min(SUMMARIES, len(documents))
    calls = len(documents) + summaries + MOST_QUESTIONS
    tokens = len(documents) * CLASS_TOKENS + summaries * SUMMARY_TOKENS + MOST_QUESTIONS * ANSWER_TOKENS
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfirmationNeeded(calls=calls)
    question = f"Up to {calls:,} calls to {settings.base_url} with at most {tokens:,} output tokens. Go on?"
    click.confirm(question, abort=True, err=True)


def _run(plan: Plan, documents: list[str], model: str, interrupts: Interrupts) -> dict[str, Any]:
    console = Console(stderr=True)
    with Stack(plan, Settings.from_environment(), interrupts, Steps(console)) as stack:
        if stack.flower and console.is_terminal:
            login = f"user {flower.USER}, password {stack.flower.password}"
            click.echo(f"Flower, for as long as this runs: {stack.flower.url}  {login}", err=True)
        before, begun = lane_stats(stack), time.monotonic()
        with LanesProgress(stack.app, console) as progress:
            run = Run(stack, model, documents, progress.show)
            run.until_answered()
        return findings(stack, run, time.monotonic() - begun, before)

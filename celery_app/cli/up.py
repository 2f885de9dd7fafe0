"""``lanes up``: broker, API, workers and Flower on this machine, until Ctrl-C."""

from __future__ import annotations

import json
import shlex
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from celery_app.cli.interrupted import interruptible
from celery_app.demo import api, flower
from celery_app.demo.model import MODEL
from celery_app.demo.stack import Plan, Stack
from celery_app.demo.steps import Steps
from celery_app.settings import Settings

if TYPE_CHECKING:
    from celery_app.demo.interrupts import Interrupts

#: Slots of the two workers: chat calls are few and short, and the shared worker serves critical, too.
CRITICAL_SLOTS, SHARED_SLOTS = 10, 20
#: Seconds of a simulated call: about what a short answer of a small model takes, and half as much either way.
LATENCY, JITTER = 1.0, 0.5
#: Seconds between two looks at the children; how long a death may go unnoticed.
TICK = 0.2

SLOTS = click.IntRange(1, 1_000)

EXAMPLE = """\
  from tasks import create_message
  create_message.apply_async(queue="critical", kwargs={{"model": "{model}", "max_tokens": 99,
                             "messages": [{{"role": "user", "content": "Hello"}}]}}).get()"""


@click.command()
@click.option("--critical-slots", type=SLOTS, default=CRITICAL_SLOTS, show_default=True, help="For critical alone.")
@click.option("--shared-slots", type=SLOTS, default=SHARED_SLOTS, show_default=True, help="For all three lanes.")
@click.option("--flower/--no-flower", "with_flower", default=True, help="Whether to start Flower.", show_default=True)
@click.option(
    "--flower-port",
    type=click.IntRange(0, 65_535),
    default=flower.DEFAULT_PORT,
    show_default=True,
    help="0 takes a free one.",
)
@click.option("--json", "as_json", is_flag=True, help="Say what is there as one JSON object.")
def up(critical_slots: int, shared_slots: int, with_flower: bool, flower_port: int, as_json: bool) -> None:
    """Run everything on this machine until Ctrl-C.

    Two workers, Flower, and whatever the environment does not name: without CELERY_BROKER_URL an embedded Valkey,
    without EZAI_API_KEY a simulated EzAI.
    """
    plan = Plan(critical_slots, shared_slots, flower_port if with_flower else None, LATENCY, JITTER)
    with interruptible() as interrupts:
        settings = Settings.from_environment()
        if api.is_real(settings):
            api.check_keys(settings)
        _run(plan, interrupts, as_json)


def _run(plan: Plan, interrupts: Interrupts, as_json: bool) -> None:
    with Stack(plan, interrupts, Steps(Console(stderr=True))) as stack:
        click.echo(json.dumps(described(stack)) if as_json else _announcement(stack))
        while True:
            stack.check()
            time.sleep(TICK)


def described(stack: Stack) -> dict[str, Any]:
    """Return what a program needs to use a running stack, passwords included."""
    login = stack.flower and {"url": stack.flower.url, "user": flower.USER, "password": stack.flower.password}
    return {
        "broker_url": stack.settings.broker_url,
        "base_url": stack.settings.base_url,
        "simulated": stack.simulated,
        "environ": stack.environ,
        "flower": login,
        "workers": {worker.node: {"queues": worker.queues, "slots": worker.slots} for worker in stack.workers},
        "logs": str(stack.group.directory),
        "pids": {"guard": stack.group.guard_pid, **{name: child.pid for name, child in stack.children.items()}},
    }


def _announcement(stack: Stack) -> str:
    return "\n".join([*_whereabouts(stack), *_environment(stack), *_example()])


def _whereabouts(stack: Stack) -> list[str]:
    kind = "simulated, because EZAI_API_KEY is not set" if stack.simulated else "with your key"
    lines = ["The lanes are up; Ctrl-C stops everything.", "", f"  EzAI     {stack.settings.base_url}  ({kind})"]
    if stack.flower:
        lines.append(f"  Flower   {stack.flower.url}  user {flower.USER}, password {stack.flower.password}")
    lines += [
        f"  worker   {worker.node}: {worker.slots} slots for {', '.join(worker.queues)}" for worker in stack.workers
    ]
    return [*lines, f"  logs     {stack.group.directory}"]


def _environment(stack: Stack) -> list[str]:
    if not stack.environ:
        return []
    exports = [f"  export {name}={shlex.quote(value)}" for name, value in stack.environ.items()]
    return ["", "For your application, or another terminal:", "", *exports]


def _example() -> list[str]:
    return ["", "A job in a lane:", "", EXAMPLE.format(model=MODEL), ""]

"""``lanes up``: broker, API, workers, Flower and a command on this machine, until Ctrl-C."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from celery.app.utils import find_app
from rich.console import Console

from celery_app.settings import has_lanes, settings_of
from demo import api, flower
from demo.commands.interrupted import interruptible
from demo.errors import ApplicationNotFound
from demo.model import MODEL
from demo.stack import Plan, Stack
from demo.steps import Steps

if TYPE_CHECKING:
    from celery_app.settings import Settings
    from demo.interrupts import Interrupts

#: Slots of the two workers: chat calls are few and short, and the shared worker serves critical, too.
CRITICAL_SLOTS, SHARED_SLOTS = 10, 20
#: A simulated call takes about what a short answer of a small model takes, and half as much either way; a stream's
#: tokens come at a pace at which they can be seen to come.
BEHAVIOUR = {"latency": 1.0, "jitter": 0.5, "tokens_per_second": 20.0, "output_tokens": 60}
#: Seconds between two looks at the children; how long a death may go unnoticed.
TICK = 0.2

#: Celery's option --workdir, as a variable.
WORKDIR = "CELERY_WORKDIR"

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
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def up(ctx: click.Context, /, critical_slots: int, shared_slots: int, as_json: bool, **options: Any) -> None:
    """Run everything on this machine until Ctrl-C.

    Two workers, Flower, and whatever neither the environment nor the application's configuration names: without
    CELERY_BROKER_URL an embedded Valkey, without EZAI_API_KEY a simulated EzAI.

    The workers run the application that `celery -A` names, where `--workdir` says. A COMMAND runs beside them with the
    same broker and API, a web server mostly; `{port}` in it becomes a free port: `celery -A proj lanes up --
    waitress-serve --listen=127.0.0.1:{port} proj.wsgi:application`.
    """
    port = options["flower_port"] if options["with_flower"] else None
    plan = Plan(critical_slots, shared_slots, port, BEHAVIOUR, named_application(ctx), options["command"])
    _stay_in_workdir()
    with interruptible() as interrupts:
        settings = settings_of(ctx.obj.app)
        if api.is_real(settings):
            api.check_keys(settings)
        _run(plan, settings, interrupts, as_json)


def named_application(ctx: click.Context) -> str:
    """Return what the workers have to be given as ``-A``: what this command was given, in any form that Celery takes.

    Raises:
        ApplicationNotFound: it was given an application itself, from Python, and the application's own name does not
            lead to it.
    """
    app, given = ctx.obj.app, ctx.find_root().params.get("app")
    if not has_lanes(app):
        raise click.ClickException(f"{app!r} has no lanes: call celery_app.install(app) where it is made")
    if isinstance(given, str):
        return given
    try:
        found = find_app(app.main)
    except (AttributeError, ImportError, TypeError, ValueError):
        found = None
    if found is not app:
        raise ApplicationNotFound(app=repr(app), name=app.main)
    return str(app.main)


def _stay_in_workdir() -> None:
    """Celery has gone to its --workdir already; a worker that finds the variable would look for it from there."""
    if os.environ.get(WORKDIR):
        os.environ[WORKDIR] = str(Path.cwd())


def _run(plan: Plan, settings: Settings, interrupts: Interrupts, as_json: bool) -> None:
    with Stack(plan, settings, interrupts, Steps(Console(stderr=True))) as stack:
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
        "command": stack.command and {"url": stack.command.url},
        "workers": {worker.node: {"queues": worker.queues, "slots": worker.slots} for worker in stack.workers},
        "logs": str(stack.group.directory),
        "pids": {"guard": stack.group.guard_pid, **{name: child.pid for name, child in stack.children.items()}},
    }


def _announcement(stack: Stack) -> str:
    # Who runs a command of their own has a program that sends jobs.
    return "\n".join([*_whereabouts(stack), *_environment(stack), *([""] if stack.command else _example())])


def _whereabouts(stack: Stack) -> list[str]:
    kind = "simulated, because EZAI_API_KEY is not set" if stack.simulated else "with your key"
    lines = ["The lanes are up; Ctrl-C stops everything.", "", f"  EzAI     {stack.settings.base_url}  ({kind})"]
    if stack.command:
        lines.insert(2, f"  open     {stack.command.url or 'no port'}  ({stack.command.title})")
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

"""``lanes up``: broker, API, workers, Flower and a command on this machine, until Ctrl-C."""

from __future__ import annotations

import json
import os
import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from celery.app.utils import find_app
from rich.console import Console

from celery_app.settings import has_lanes, settings_of
from demo.errors import Unusable
from demo.processes import interruptible
from demo.run import MODEL
from demo.stack import FLOWER_USER, Stack

#: Slots of the two workers: chat calls are few and short, and the shared worker serves critical, too.
CRITICAL_SLOTS, SHARED_SLOTS = 10, 20
FLOWER_PORT = 5555
#: A simulated call takes about what a short answer of a small model takes, and half as much either way; a stream's
#: tokens come at a pace at which they can be seen to come.
BEHAVIOUR = {"latency": 1.0, "jitter": 0.5, "tokens_per_second": 20.0, "output_tokens": 60}
#: Seconds between two looks at the children; how long a death may go unnoticed.
TICK = 0.2

EXAMPLE = """\
  from tasks import create_message
  create_message.apply_async(queue="critical", kwargs={{"model": "{model}", "max_tokens": 99,
                             "messages": [{{"role": "user", "content": "Hello"}}]}}).get()"""


@click.command(context_settings={"show_default": True})
@click.option("--critical-slots", type=click.IntRange(1), default=CRITICAL_SLOTS, help="For critical alone.")
@click.option("--shared-slots", type=click.IntRange(1), default=SHARED_SLOTS, help="For all three lanes.")
@click.option("--flower/--no-flower", "with_flower", default=True, help="Whether to start Flower.")
@click.option("--flower-port", type=int, default=FLOWER_PORT, help="0 takes a free one.")
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
    plan = {"slots": (critical_slots, shared_slots), "flower_port": port, "command": options["command"]}
    runs = _named_application(ctx)
    if os.environ.get("CELERY_WORKDIR"):
        # Celery has gone there already; a worker that finds the variable would look for it from there.
        os.environ["CELERY_WORKDIR"] = str(Path.cwd())
    with interruptible() as interrupts:
        settings = settings_of(ctx.obj.app)
        with Stack(settings, interrupts, Console(stderr=True), runs=runs, behaviour=BEHAVIOUR, **plan) as stack:
            click.echo(json.dumps(_described(stack)) if as_json else _announcement(stack))
            while True:
                stack.check()
                time.sleep(TICK)


def _named_application(ctx: click.Context) -> str:
    """Return what the workers have to be given as ``-A``: what this command was given, in any form that Celery takes.

    An application that was given itself, from Python, has to be where its own name leads to.
    """
    app, given = ctx.obj.app, ctx.find_root().params.get("app")
    if not has_lanes(app):
        raise Unusable(problem=f"{app!r} has no lanes: call celery_app.install(app) where it is made")
    if isinstance(given, str):
        return given
    with suppress(AttributeError, ImportError, TypeError, ValueError):
        if find_app(app.main) is app:
            return str(app.main)
    how = f"`-A {app.main}` does not lead to it; say where it is, as in `celery -A proj`"
    raise Unusable(problem=f"Workers cannot be started for {app!r}: {how}")


def _described(stack: Stack) -> dict[str, Any]:
    """Return what a program needs to use a running stack, passwords included."""
    flower, command = stack.flower, stack.command
    return {
        "broker_url": stack.settings.broker_url,
        "base_url": stack.settings.base_url,
        "simulated": stack.simulated,
        "environ": stack.environ,
        "flower": flower and {"url": flower.url, "user": FLOWER_USER, "password": flower.password},
        "command": command and {"url": command.url},
        "workers": stack.workers,
        "logs": str(stack.group.directory),
        "pids": {
            "guard": stack.group.guard.process.pid,
            **{name: child.process.pid for name, child in stack.children.items()},
        },
    }


def _announcement(stack: Stack) -> str:
    kind = "simulated, because EZAI_API_KEY is not set" if stack.simulated else "with your key"
    lines = ["The lanes are up; Ctrl-C stops everything.", "", f"  EzAI     {stack.settings.base_url}  ({kind})"]
    if stack.command:
        lines.insert(2, f"  open     {stack.command.url or 'no port'}  ({stack.command.title})")
    if stack.flower:
        lines.append(f"  Flower   {stack.flower.url}  user {FLOWER_USER}, password {stack.flower.password}")
    for node, known in stack.workers.items():
        lines.append(f"  worker   {node}: {known['slots']} slots for {', '.join(known['queues'])}")
    lines.append(f"  logs     {stack.group.directory}")
    if stack.environ:
        exports = [f"  export {name}={shlex.quote(value)}" for name, value in stack.environ.items()]
        lines += ["", "For your application, or another terminal:", "", *exports]
    # Who runs a command of their own has a program that sends jobs.
    lines += [""] if stack.command else ["", "A job in a lane:", "", EXAMPLE.format(model=MODEL), ""]
    return "\n".join(lines)

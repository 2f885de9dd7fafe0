"""``celery -A proj lanes check``: whether all is as the lanes need it; for CI, and for whoever sets them up."""

from __future__ import annotations

import json

import click

from celery_app import checks
from celery_app.cli.output import app_of, command_of, printable

#: Cheap, and what README begins with.
MODEL = "claude-haiku-4-5"

#: Columns of level and of what was looked at.
_LEVEL, _WHAT = 5, 12


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--call", is_flag=True, help="Make one call with each key, of about 10 input tokens and 1 output token: that costs."
)
@click.option("--model", default=MODEL, show_default=True, help="Of that call.")
@click.pass_context
def check(ctx: click.Context, as_json: bool, call: bool, model: str) -> None:
    """Look at settings, broker, versions, workers and dead letters; end with 1 if the lanes cannot work like this."""
    app = app_of(ctx)
    findings = list(checks.check(app, command_of(ctx)))
    if call and not any(each.what == "settings" and each.level == "fail" for each in findings):
        from celery_app.api_check import check_api  # it brings the SDK along, which takes a second

        findings += check_api(app, model)
    if as_json:
        click.echo(json.dumps([each._asdict() for each in findings], indent=2))
    else:
        for each in findings:
            advice = f"; {each.advice}" if each.advice else ""
            click.echo(printable(f"{each.level:<{_LEVEL}} {each.what:<{_WHAT}} {each.words}{advice}"))
    ctx.exit(1 if any(each.level == "fail" for each in findings) else 0)

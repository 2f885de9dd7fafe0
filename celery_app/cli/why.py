"""``celery -A proj lanes why``: what the lanes, or one job, wait for, and what to do about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from celery_app.budget.levels import Budgets
from celery_app.cli.dollars import spent_words
from celery_app.cli.durations import shown
from celery_app.cli.output import app_of, command_of, printable, waits
from celery_app.errors import BrokerUnreachable
from celery_app.lanes import LANES
from celery_app.metrics.advice import Adviser
from celery_app.metrics.backlog import Backlog
from celery_app.metrics.explanation import explain_with_reasons
from celery_app.metrics.look import look
from celery_app.metrics.reasons import Reason
from celery_app.metrics.stats import WAIT_WINDOW, lane_money

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery_app.metrics.look import Look

#: What to say of a job that waits for nothing.
_STATES = {
    "running": "a worker has it",
    "ended": "it has ended: its result says how",
    "dead": "it is a dead letter",
}

_AWAY = (
    "start Redis, or mend CELERY_BROKER_URL; workers and publishers reconnect by themselves, and what is queued is "
    "kept. {} lanes check looks at all of it"
)


@click.command()
@click.argument("what", metavar="[LANE|JOB_ID]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def why(ctx: click.Context, what: str | None, as_json: bool) -> None:
    """Say what each lane, or LANE, or a job waits for, and what to do about it."""
    app, command = app_of(ctx), command_of(ctx)
    names = [lane.name for lane in LANES]
    try:
        if what is None or what in names:
            told = _lanes(app, names if what is None else [what], command)
            click.echo(json.dumps(told, indent=2) if as_json else "\n".join(_lane_lines(told)))
            return
        job = _job(app, what, command)
    except BrokerUnreachable as exc:
        advice = _AWAY.format(command)
        told = {"waiting_for": [{"kind": "broker", "words": str(exc), "advice": advice}]}
        click.echo(json.dumps(told, indent=2) if as_json else f"Error: {exc}\n  {advice}", err=not as_json)
        ctx.exit(1)
    if job["state"] == "unknown" and not as_json:
        raise click.ClickException(f"no lane and no job {printable(what)!r} is known; lanes are {', '.join(names)}")
    click.echo(json.dumps(job, indent=2) if as_json else "\n".join(_job_lines(job)))
    ctx.exit(1 if job["state"] == "unknown" else 0)


def _look(app: Any, command: str) -> tuple[Look, Adviser]:
    found = look(app, WAIT_WINDOW, WAIT_WINDOW, budgets=True)
    return found, Adviser(found, Budgets.of(found.levels), Backlog().slots_wanted(found), command)


def _lanes(app: Any, names: Iterable[str], command: str) -> dict[str, Any]:
    found, adviser = _look(app, command)
    return {name: _lane(found, adviser, name) for name in names}


def _lane(found: Look, adviser: Adviser, name: str) -> dict[str, Any]:
    lane = found.lanes[name]
    return lane_money(found, name) | {
        "depth": lane.place.depth,
        "oldest_s": lane.place.oldest_s,
        "in_flight": lane.place.in_flight,
        "returning": lane.place.returning,
        "dead": lane.place.dead,
        "workers": lane.workers,
        "waiting_for": adviser.waiting(name),
        "advice": adviser.on_dead(name),
    }


def _job(app: Any, job_id: str, command: str) -> dict[str, Any]:
    explained, reasons, short = explain_with_reasons(app, job_id)
    told: list[dict[str, str]] = []
    if short is not None:
        if explained["state"] == "queued" and not reasons:
            reasons.append(Reason("slots", f"a slot of {short.lane}"))
        _, adviser = _look(app, command)
        told = [{**each._asdict(), "advice": adviser.on(each, short)} for each in reasons]
    advice = f"{command} lanes dead show {job_id}" if explained["state"] == "dead" else None
    return {"id": job_id, **explained, "waiting_for": told, "advice": advice}


def _lane_lines(told: dict[str, Any]) -> list[str]:
    lines = []
    for name, lane in told.items():
        places = f"{lane['depth']:,} queued, {lane['in_flight']:,} in flight, {lane['workers']} workers"
        oldest = f", the oldest for {shown(lane['oldest_s'])}" if lane["oldest_s"] is not None else ""
        spent = f", {spent_words(lane)}" if "usd_today" in lane else ""
        lines += [f"{name}: {places}{oldest}{spent}", *_reason_lines(name, lane["waiting_for"])]
        if not lane["waiting_for"]:
            lines.append(f"  {name} waits for nothing")
        if lane["advice"]:
            lines += [f"  {lane['dead']:,} dead letters", f"    {lane['advice']}"]
    return lines


def _job_lines(job: dict[str, Any]) -> list[str]:
    of = f", {job['position']:,} of {job['of']:,}" if job["position"] else ""
    lane = f" in {job['lane']}" if job["lane"] else ""
    lines = [f"{printable(job['id'])}: {job['state']}{lane}{of}", *_reason_lines("it", job["waiting_for"])]
    if job["expected_s"] is not None:
        lines.append(f"  expected to leave in {shown(job['expected_s'])}")
    if job["state"] in _STATES:
        lines.append(f"  {_STATES[job['state']]}")
    if job["advice"]:
        lines.append(f"    {job['advice']}")
    return lines


def _reason_lines(who: str, reasons: Iterable[dict[str, str]]) -> list[str]:
    return [printable(line) for each in reasons for line in (f"  {waits(who, each['words'])}", f"    {each['advice']}")]

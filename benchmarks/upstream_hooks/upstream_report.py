"""A pytest plugin that writes how each test ended, a line of JSON each: also of a run that does not come to its end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def _outcome(report: Any) -> str | None:
    """Return a test's outcome, or None where this phase does not decide it."""
    if report.outcome == "rerun":
        return "rerun"
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.when == "call" or report.skipped:
        return str(report.outcome)
    return "error" if report.failed else None


def pytest_runtest_logreport(report: Any) -> None:
    """Write a line for each phase that says something."""
    outcome = _outcome(report)
    if outcome is None:
        return
    line = {"test": report.nodeid, "outcome": outcome, "reason": _reason(report)}
    with Path(os.environ["UPSTREAM_REPORT"]).open("a") as file:
        file.write(f"{json.dumps(line)}\n")


def _reason(report: Any) -> str:
    """The last line of what went wrong."""
    if report.outcome in {"passed", "skipped"}:
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    return next(iter(text.strip().splitlines()), "")[:200]

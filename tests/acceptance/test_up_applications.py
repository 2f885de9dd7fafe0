"""`lanes up` runs the workers of whatever `celery -A` accepts."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kit.processes import running
from kit.waiting import wait_until

from demo.simulator import running as simulator

#: Seconds for a stack to start, and to be gone, on a loaded CI machine.
START_S, STOP_S = 90.0, 15.0

#: Flask's own documentation, and one line of ours.
FLASK = """\
from celery import Celery, Task
from flask import Flask

from celery_app import install


def celery_init_app(app):
    class FlaskTask(Task):
        def __call__(self, *args, **kwargs):
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    install(celery_app)
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app


def create_app():
    app = Flask("the shop")
    app.config.from_mapping(CELERY={"task_ignore_result": True})
    celery_init_app(app)
    return app
"""
MAKE = """\
from {package} import create_app

flask_app = create_app()
celery_app = flask_app.extensions["celery"]
"""
PROJ = """\
from celery import Celery

from celery_app import install

app = Celery("another name")
install(app)
"""
LAZY = """\
from shop.flask_shop import create_app


def __getattr__(name):
    if name == "made":
        globals()["made"] = create_app().extensions["celery"]
        return made
    raise AttributeError(name)
"""


@pytest.fixture
def folder(tmp_path):
    """Projects as their users have them; none is named as its application is."""
    files = {
        "shop/__init__.py": "",
        "shop/flask_shop.py": FLASK,
        "shop/make_celery.py": MAKE.format(package="shop.flask_shop"),
        "shop/lazy.py": LAZY,
        "make_celery.py": MAKE.format(package="shop.flask_shop"),
        "proj/__init__.py": "",
        "proj/celery.py": PROJ,
    }
    for name, text in files.items():
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return tmp_path / "src"


@pytest.fixture
def environ(tmp_path):
    """The environment of somebody who has configured nothing; temporary files go to `tmp_path`."""
    ours = ("CELERY_", "EZAI_", "LANES_", "FLOWER_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "TMPDIR": str(tmp_path)}


@contextmanager
def up(environ: dict[str, str], cwd: Path, *options: str) -> Iterator[dict[str, Any]]:
    """Run `celery … lanes up` and give what it says about itself; it has to end in order."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "celery", *options, "lanes", "up", "--json", "--no-flower"]
    with subprocess.Popen(
        command, env=environ, cwd=cwd, stdout=pipe, stderr=pipe, text=True, process_group=0
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            told = json.loads(line)
            yield told
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=STOP_S)
        finally:
            process.kill()
    wait_until(lambda: not running(told["pids"].values()), "all processes are gone", STOP_S)


def applications(told: dict[str, Any]) -> set[str]:
    """Return the names of the applications that the workers say they run."""
    logs = sorted(Path(told["logs"]).glob("worker-*.log"))
    assert len(logs) == 2
    lines = [line for log in logs for line in log.read_text().splitlines() if "app:" in line]
    return {line.partition("app:")[2].strip().rpartition(":")[0] for line in lines}


@pytest.mark.parametrize(
    ("name", "main"),
    [
        ("make_celery", "the shop"),
        pytest.param("shop.make_celery:celery_app", "the shop", marks=pytest.mark.slow),
        pytest.param("shop.make_celery", "the shop", marks=pytest.mark.slow),
        pytest.param("proj", "another name", marks=pytest.mark.slow),
        ("shop.lazy:made", "the shop"),
    ],
)
def test_up_runs_what_worker_runs(environ, folder, name, main):
    """The workers get the very words that were given to -A, and find the same application by them."""
    with up(environ, folder, "-A", name) as told:
        assert applications(told) == {main}


@pytest.mark.parametrize("how", ["option", "variables", "absolute"])
def test_up_runs_it_where_it_is(environ, folder, how):
    """--workdir and the variables that stand for the options lead the workers to the same place, relative or not."""
    options = {
        "option": ["--workdir", folder.name, "--app", "make_celery"],
        "absolute": ["--workdir", str(folder), "--app=make_celery"],
    }
    if how == "variables":
        environ |= {"CELERY_WORKDIR": folder.name, "CELERY_APP": "make_celery"}
    with up(environ, folder.parent, *options.get(how, [])) as told:
        assert applications(told) == {"the shop"}


def test_up_takes_the_key_from_the_applications_configuration(environ, folder):
    """A key in the configuration is one: the workers call the API that stands beside it, and no simulated one."""
    with simulator(keys=["the-key"]) as api:
        settings = f"\napp.conf.ezai_api_key = 'the-key'\napp.conf.ezai_base_url = '{api.url}/v1'\n"
        (folder / "proj/celery.py").write_text(PROJ + settings)
        with up(environ, folder, "-A", "proj") as told:
            assert (told["simulated"], told["base_url"]) == (False, api.url)
            assert "EZAI_BASE_URL" not in told["environ"]


def test_up_uses_the_broker_of_the_applications_configuration(environ, folder, broker_url):
    """The project's own programs send to the broker that its configuration names, so the workers serve that one."""
    (folder / "proj/celery.py").write_text(f"{PROJ}\napp.conf.broker_url = {broker_url!r}\n")
    with up(environ, folder, "-A", "proj") as told:
        assert told["broker_url"] == broker_url
        assert "broker" not in told["pids"]


def test_an_application_that_cannot_be_found_is_told_in_one_line(environ, tmp_path):
    """A program that starts the command from Python, with an application whose name leads nowhere, hears so."""
    code = "from celery import Celery\nfrom celery_app import install\napp = Celery('store')\ninstall(app)\n"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}app.start(['lanes', 'up'])"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    assert "-A store" in result.stderr

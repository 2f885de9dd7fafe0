import base64
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kit.processes import running
from kit.waiting import wait_until

from demo.simulator import running as simulator

LANES = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes"]
ROOT = Path(__file__).parents[2]
#: A stack starts in 5 s on a laptop; a loaded CI machine gets what the stack itself allows its workers.
START_S = 90.0
#: "everything gone within 10 s", and a slow machine.
STOP_S = 15.0


@pytest.fixture
def environ(tmp_path):
    """The environment of somebody who has configured nothing; temporary files go to `tmp_path`."""
    ours = ("CELERY_", "EZAI_", "LANES_", "FLOWER_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "TMPDIR": str(tmp_path)}


def finished(environ: dict[str, str], *arguments: str, seconds: float = START_S) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without a terminal."""
    return subprocess.run(
        [*LANES, *arguments],
        env=environ,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@contextmanager
def started(environ: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command beside the test, in a process group of its own as a shell would."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*LANES, *arguments], env=environ, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, process_group=0
    ) as command:
        try:
            yield command
        finally:
            command.kill()


@contextmanager
def up(environ: dict[str, str], *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run `lanes up`, and give its process and what it says about itself."""
    with started(environ, "up", "--json", "--flower-port", "0", *arguments) as command:
        assert command.stdout is not None
        line = command.stdout.readline()
        assert line, command.stderr and command.stderr.read()
        yield command, json.loads(line)


def assert_gone(told: dict[str, Any]) -> None:
    """Nothing is left of a stack: no process, no port, no file."""
    wait_until(lambda: not running(told["pids"].values()), "all processes are gone", STOP_S)
    assert not Path(told["logs"]).exists()
    urls = [told["broker_url"], told["base_url"], *([told["flower"]["url"]] if told["flower"] else [])]
    assert not [url for url in urls if listens(url)]


def listens(url: str) -> bool:
    """Whether anybody listens where a URL points to."""
    place = urlsplit(url)
    try:
        socket.create_connection((str(place.hostname), place.port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def assert_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """A foreseen error is one line on stderr, nothing on stdout, and status 1."""
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def children_of(pid: int) -> set[int]:
    """Return the processes that a process has started and not yet collected."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)  # noqa: S607
    pairs = (line.split() for line in listed.stdout.splitlines())
    return {int(child) for child, parent in pairs if int(parent) == pid}


def arguments_of(pids: dict[str, int]) -> str:
    """Return what everybody on the machine can see of processes."""
    listed = [str(pid) for pid in pids.values()]
    shown = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", ",".join(listed)],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout


def test_the_demo_shows_what_chat_waits_beside_a_batch(environ, tmp_path):
    """`lanes demo --json` prints one object with every lane's waits, and leaves nothing behind."""
    with started(environ, "demo", "--json", "--count", "130") as command:
        # The guard, the broker, two workers and Flower.
        wait_until(lambda: len(children_of(command.pid)) == 5, "all children are there", START_S)
        children = children_of(command.pid)
        stdout, stderr = command.communicate(timeout=START_S)
    assert (command.returncode, stderr) == (0, "")
    found = json.loads(stdout)
    assert {name: lane["failed"] for name, lane in found["lanes"].items()} == {"critical": 0, "normal": 0, "batch": 0}
    assert found["lanes"]["batch"]["jobs"] == 130
    assert found["lanes"]["normal"]["jobs"] == 10
    for lane in found["lanes"].values():
        waits = lane["wait_ms"]
        assert 0 < waits["p50"] <= waits["p95"] <= waits["p99"] <= waits["max"]
    beside = found["critical_beside_batch"]
    assert beside["jobs"] >= 5
    # A tenth of a batch job's wait would be seconds; a chat question's is below one even on a loaded machine.
    assert beside["wait_ms"]["p50"] < 500 < found["lanes"]["batch"]["wait_ms"]["p50"]
    assert str(round(beside["wait_ms"]["max"])) in found["sentence"].replace(",", "")
    wait_until(lambda: not running(children), "all processes are gone", STOP_S)
    assert not list(tmp_path.glob("ezai-lanes-*"))


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_up_ends_completely_when_told(environ, number):
    """Ctrl-C, SIGTERM and SIGHUP end everything in order: one line, status 130, nothing left."""
    with up(environ) as (command, told):
        assert running(told["pids"].values()) == set(told["pids"].values())
        # To the whole group, as a terminal does.
        os.killpg(command.pid, number)
        stdout, stderr = command.communicate(timeout=STOP_S)
    assert command.returncode == 130
    assert (stdout, stderr.count("\n")) == ("", 1), stderr
    assert_gone(told)


def test_up_leaves_nothing_behind_when_killed(environ):
    """SIGKILL to the command alone: within seconds every process, port and file of the stack is gone."""
    with up(environ) as (command, told):
        command.kill()
        command.wait(STOP_S)
        wait_until(lambda: not Path(told["logs"]).exists(), "the directory is gone", STOP_S)
        assert_gone(told)


@pytest.mark.slow
def test_up_ends_while_it_starts(environ):
    """Ctrl-C in the middle of the start ends what was started by then."""
    with started(environ, "up", "--no-flower") as command:
        wait_until(lambda: len(children_of(command.pid)) >= 2, "some children are there", START_S)
        children = children_of(command.pid)
        command.send_signal(signal.SIGINT)
        stdout, stderr = command.communicate(timeout=STOP_S)
    assert (command.returncode, stdout, stderr.count("\n")) == (130, "", 1), stderr
    wait_until(lambda: not running(children), "all processes are gone", STOP_S)


@pytest.mark.parametrize(
    ("victim", "words"), [pytest.param("guard", "guard", marks=pytest.mark.slow), ("worker-shared", "worker shared@")]
)
def test_up_ends_when_a_process_of_it_dies(environ, victim, words):
    """A stack that has lost a process says which, stops the others and fails."""
    with up(environ) as (command, told):
        os.kill(told["pids"][victim], signal.SIGKILL)
        _, stderr = command.communicate(timeout=STOP_S)
    assert command.returncode == 1
    assert words in stderr.splitlines()[0]
    assert "Traceback" not in stderr
    assert_gone(told)


def test_what_up_prints_works(environ):
    """The environment lines and the example that `lanes up` prints answer a job in another process."""
    with started(environ, "up", "--no-flower") as command:
        assert command.stdout is not None
        printed: list[str] = []
        while not printed or ").get()" not in printed[-1]:
            printed.append(command.stdout.readline())
            assert printed[-1], command.stderr and command.stderr.read()
        text = "".join(printed)
        exported = dict(part.split("=", 1) for line in re.findall(r"export (.*)", text) for part in shlex.split(line))
        example = textwrap.dedent(text[text.index("  from tasks") :]).strip()
        script = example.replace("create_message.apply", "print(create_message.apply", 1) + ")"
        result = subprocess.run(
            [sys.executable, "-c", script],
            env={**environ, **exported},
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        command.send_signal(signal.SIGINT)
        command.communicate(timeout=STOP_S)
    assert result.returncode == 0, result.stderr
    assert "You said: Hello" in result.stdout


def test_no_secret_is_on_a_command_line_and_flower_asks_for_its_own(environ):
    """Passwords are in nobody's arguments, and Flower shows a page only to who knows its own."""
    with up(environ, "--critical-slots", "3") as (command, told):
        login = told["flower"]
        shown = arguments_of(told["pids"])
        assert "-c 3" in shown
        assert login["password"] not in shown
        assert str(urlsplit(told["broker_url"]).password) not in shown
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{login['url']}/workers")  # noqa: S310
        token = base64.b64encode(f"{login['user']}:{login['password']}".encode()).decode()
        request = urllib.request.Request(f"{login['url']}/workers", headers={"Authorization": f"Basic {token}"})  # noqa: S310
        with urllib.request.urlopen(request) as page:  # noqa: S310
            assert page.status == 200
        command.send_signal(signal.SIGTERM)
        command.communicate(timeout=STOP_S)


@pytest.mark.slow
def test_a_command_runs_beside_the_workers(environ):
    """A command after `--` gets a free port and the stack's broker, ends the stack when it ends, and ends with it."""
    # A web server that tells the broker of its environment.
    script = (
        "import http.server, os, sys\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.wfile.write(b'HTTP/1.0 200 OK\\r\\n\\r\\n' + os.environ['CELERY_BROKER_URL'].encode())\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()"
    )
    with up(environ, "--no-flower", "--", sys.executable, "-c", script, "{port}") as (command, told):
        with urllib.request.urlopen(told["command"]["url"], timeout=START_S) as page:  # noqa: S310
            assert page.read().decode() == told["broker_url"]
        os.kill(told["pids"]["command"], signal.SIGTERM)
        _, stderr = command.communicate(timeout=STOP_S)
    assert command.returncode == 1
    assert Path(sys.executable).name in stderr
    assert_gone(told)


def test_what_cannot_be_run_is_one_line(environ):
    """A program that is not there is told in one line."""
    assert_one_line(finished(environ, "up", "--no-flower", "--", "no-such-program"), "no-such-program")


def test_a_broker_of_ones_own_is_used_and_left_running(environ, broker_url):
    """With CELERY_BROKER_URL no broker is started, a second stack on it is refused, and it outlives both."""
    environ["CELERY_BROKER_URL"] = broker_url
    with up(environ, "--no-flower") as (command, told):
        assert told["broker_url"] == broker_url
        assert "broker" not in told["pids"]
        assert "CELERY_BROKER_URL" not in told["environ"]
        assert_one_line(finished(environ, "up", "--no-flower"), "critical@")
        command.send_signal(signal.SIGTERM)
        command.communicate(timeout=STOP_S)
    wait_until(lambda: not running(told["pids"].values()), "all processes are gone", STOP_S)
    assert listens(broker_url)


def test_a_taken_flower_port_is_one_line(environ):
    """A port that somebody else listens on is told before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_one_line(finished(environ, "up", "--flower-port", port), port, "--flower-port")


def test_a_broker_that_is_not_there_is_one_line(environ, dead_port):
    """A wrong CELERY_BROKER_URL is told without its password, whether nobody answers there or it is no URL."""
    for url in (f"redis://:secret@127.0.0.1:{dead_port}/0", "http://:secret@127.0.0.1/"):
        result = finished({**environ, "CELERY_BROKER_URL": url}, "demo", "--json")
        assert_one_line(result, "CELERY_BROKER_URL")
        assert "secret" not in result.stderr


@pytest.mark.parametrize(("lane", "words"), [("", "refused the key (401)"), ("_BATCH", "EZAI_API_KEY")])
def test_a_refused_key_ends_it(environ, lane, words):
    """A key that the API refuses, or a lane without one, ends the start with the worker's own words, never the key."""
    with simulator(keys=["another-key"]) as api:
        result = finished({**environ, f"EZAI_API_KEY{lane}": "the-key", "EZAI_BASE_URL": api.url}, "up", "--no-flower")
    assert result.returncode == 1
    assert result.stdout == ""
    assert words in result.stderr
    assert "the-key" not in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_the_demo_costs_nothing(environ):
    """With a real key in the environment, too, the demo calls its simulated API alone."""
    with simulator() as api:
        real = {**environ, "EZAI_API_KEY": "the-key", "EZAI_API_KEY_BATCH": "the-key", "EZAI_BASE_URL": api.url}
        result = finished(real, "demo", "--count", "5", "--no-flower", "--json")
        assert api.summary()["total"] == 0
    assert result.returncode == 0, result.stderr
    lanes = json.loads(result.stdout)["lanes"]
    assert [lanes[name]["jobs"] for name in ("normal", "batch")] == [5, 5]

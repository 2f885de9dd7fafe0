"""What the recipes run against: a broker, the recipes' own worker, a simulated API, and web servers for the views."""

import dataclasses
import http.client
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import django
from celery import Celery, _state
from django.conf import settings as django_settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test.utils import override_settings
from kit.worker import WorkerProcess, worker
from pydantic import SecretStr
from redis.exceptions import ConnectionError as NoConnection
from werkzeug.serving import WSGIRequestHandler, make_server

from celery_app import LANES, create_app
from celery_app.connections.redis_client import redis_client
from celery_app.settings import Settings
from demo.simulator import RunningServer, running
from tests.conftest import Valkey, close

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "examples" / "recipes"

#: A Django project's settings, as far as the recipe of an own Celery application reads them.
DJANGO_SETTINGS = """\
SECRET_KEY = "test"
CELERY_IMPORTS = ["own_task", "workflows"]
CELERY_TASK_DEFAULT_QUEUE = "celery"
"""

#: Seconds that any HTTP answer, and any single piece of a streamed one, may take.
IN_TIME_S = 30.0


@dataclass(frozen=True, slots=True)
class Rig:
    """All that there is.

    Attributes:
        app: the web processes' Celery application, the default one of this process.
        api: that the worker calls.
        worker: of the recipe ``own_celery_app.py``, for all queues.
        env: the environment of further processes.
    """

    app: Celery
    api: RunningServer
    worker: WorkerProcess
    env: dict[str, str]


def lane_keys() -> dict[str, str]:
    """Return the variables in the recipe of keys and limits."""
    lines = (RECIPES / "lane_keys.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


@contextmanager
def rig(valkey: Valkey, db: int, tmp_path: Path) -> Iterator[Rig]:
    """Run the recipes' worker on an empty database of its own, and make its broker this process's."""
    with valkey.client(db) as redis:
        redis.flushdb()
    broker = valkey.url(db)
    (tmp_path / "project_settings.py").write_text(DJANGO_SETTINGS)
    keys = {lane.name: SecretStr("unused") for lane in LANES}
    app = create_app(Settings(broker_url=broker, result_backend=broker, api_keys=keys))
    with running() as api, default_app(app):
        env = {
            "CELERY_BROKER_URL": broker,
            "CELERY_RESULT_BACKEND": broker,  # for the project's ordinary tasks, too
            "EZAI_BASE_URL": api.url,
            "ANTHROPIC_BASE_URL": api.url,
            "ANTHROPIC_API_KEY": "sk-own-task",
            "DJANGO_SETTINGS_MODULE": "project_settings",
            "PYTHONPATH": f"{RECIPES}:{tmp_path}",
            **lane_keys(),
        }
        with worker(tmp_path, "-Q", "critical,normal,batch,celery", "-c", "8", app="own_celery_app", **env) as started:
            yield Rig(app, api, started, env)
    close(app)


@contextmanager
def default_app(app: Celery) -> Iterator[None]:
    """Make an application the one that the recipes' own calls find."""
    default, current = _state.default_app, _state._tls.current_app
    app.set_default()
    _state._set_current_app(None)
    try:
        yield
    finally:
        _state.set_default_app(default)
        _state._set_current_app(current)


@contextmanager
def without_worker(broker: str, **changes: Any) -> Iterator[Celery]:
    """Have the recipes submit where nobody works; all lanes are changed in the same way."""
    lanes = tuple(dataclasses.replace(lane, **changes) for lane in LANES)
    app = create_app(Settings(broker_url=broker, result_backend=broker, lanes=lanes))
    with default_app(app):
        yield app
    with suppress(NoConnection):  # where there is no broker there is nothing to clean up
        redis_client(app).flushdb()
    redis_client(app).close()
    app.close()  # not `close`, which closes every application's pools


def fresh(up: Rig, **behaviour: Any) -> Rig:
    """Return the rig with an empty log, a budget that knows nothing, and an API that behaves like this."""
    defaults = {
        "latency": 0.0,
        "tokens_per_second": 0.0,
        "output_tokens": 16,
        "spend_limit": False,
        "model_forbidden": False,
        "server_error_rate": 0.0,
    }
    up.api.control(**{**defaults, **behaviour})
    up.api.clear()
    redis = redis_client(up.app)
    for key in redis.keys("lanes:budget:*"):
        redis.delete(key)
    return up


def recipe(name: str) -> Any:
    """Import a recipe by the name of its file."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@contextmanager
def django_site(middleware: tuple[str, ...] = (), *, asgi: bool = False, **views: str) -> Iterator[Any]:
    """Give Django's WSGI or ASGI application with these views.

    Args:
        asgi: which.
        middleware: as in Django's settings.
        views: name of the first part of the path -> ``<recipe>.<function>``; a second part is the task's id.
    """
    from django.urls import path

    urls: Any = ModuleType("urls")
    urls.urlpatterns = []
    _set_django_up()
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=list(middleware)):
        for name, view in views.items():
            module, function = view.split(".")
            found = getattr(recipe(module), function)
            urls.urlpatterns += [path(name, found), path(f"{name}/<task_id>", found)]
        yield ASGIHandler() if asgi else WSGIHandler()


def _set_django_up() -> None:
    if not django_settings.configured:
        django_settings.configure(SECRET_KEY="test", ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None)  # noqa: S106
        django.setup()


class _Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer.

    Attributes:
        status: as in 200.
        headers: by their names.
        stream: the body.
    """

    status: int
    headers: Mapping[str, str]
    stream: http.client.HTTPResponse

    def json(self) -> Any:
        """Return the body, which is JSON."""
        with self.stream:
            return json.load(self.stream)

    def events(self) -> Iterator[tuple[str | None, dict[str, Any]]]:
        """Yield id and event of each server-sent event, as they come."""
        event_id = None
        with self.stream:
            for line in self.stream:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    event_id = value
                elif name == "data":
                    yield event_id, json.loads(value)


class Site:
    """A web site on a port of its own."""

    def __init__(self, port: int) -> None:
        self._port = port

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request; a dict is sent as JSON, a string as a form."""
        kind = "application/x-www-form-urlencoded" if isinstance(body, str) else "application/json"
        text = body if isinstance(body, str) else json.dumps(body)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=IN_TIME_S)
        connection.request(method, path, None if body is None else text, {"Content-Type": kind, **given})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response)


@contextmanager
def served(application: Any) -> Iterator[Site]:
    """Serve a WSGI application over HTTP, each request in a thread of its own."""
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Site(server.server_port)
    finally:
        server.shutdown()
        thread.join(IN_TIME_S)
        server.server_close()

"""docker-compose.yml hands through what can be set, and keeps no secret."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_app import LANES
from celery_app.configuration.variables import paths
from celery_app.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = ["worker-critical", "worker-shared", "flower", "web"]

#: ${NAME:-default} and ${NAME:?message}.
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
SECRET = re.compile(r"KEY|PASSWORD|AUTH")


def interpolated(value: str, environ: dict[str, str]) -> str:
    """Return a value as Compose hands it to a container."""
    return VARIABLE.sub(lambda found: environ.get(found[1]) or (found[3] if found[2] == "-" else ""), value)


@pytest.mark.parametrize("name", OURS)
def test_whatever_can_be_set_is_handed_through(name):
    """Each variable that the settings know reaches each container under its own name."""
    environment = SERVICES[name]["environment"]
    wanted = {*paths(), "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"}
    assert wanted <= {*environment}
    for variable in wanted - {"CELERY_BROKER_URL"}:
        assert interpolated(environment[variable], {variable: "set"}) == "set"


def test_what_is_not_set_changes_nothing(monkeypatch):
    """With the wanted secrets alone a container has the defaults."""
    for variable, value in SERVICES["worker-shared"]["environment"].items():
        monkeypatch.setenv(variable, interpolated(value, {"EZAI_API_KEY": "k", "VALKEY_PASSWORD": "p"}))
    for variable in [name for name in os.environ if name.startswith(("EZAI_", "LANES_")) and not os.environ[name]]:
        assert variable in paths()
    settings = Settings.from_environment()
    assert settings.lanes == LANES
    assert settings.broker_url == settings.result_backend == "redis://:p@valkey:6379/0"
    assert {settings.api_key(lane) for lane in LANES} == {"k"}


def test_no_secret_has_a_value():
    """Keys and passwords come from the environment alone; what everything needs is asked for by name."""
    found = VARIABLE.findall(TEXT)
    assert {name for name, kind, value in found if SECRET.search(name) and kind == "-" and value} == set()
    assert {name for name, kind, _ in found if kind == "?"} == {"EZAI_API_KEY", "VALKEY_PASSWORD", "FLOWER_BASIC_AUTH"}


def test_a_web_app_joins_when_it_is_asked_to():
    """The web service stays out of a plain `up`, and has the workers' broker."""
    assert SERVICES["web"]["profiles"] == ["web"]
    assert SERVICES["web"]["environment"] == SERVICES["worker-shared"]["environment"]

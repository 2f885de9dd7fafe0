"""The site's suite: a database of its own, workers of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from processes_of_celery import Process, process

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where logs and the database are; the site is set up from here on."""
    path = tmp_path_factory.mktemp("django")
    os.environ["SITE_DATABASE"] = str(path / "db.sqlite3")
    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return path


@pytest.fixture(scope="session")
def site(folder: Path) -> Any:
    """The site's Celery application, its database migrated."""
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from mysite.celery import app

    return app


@pytest.fixture(scope="session")
def emails(site: Any, folder: Path) -> Iterator[Process]:
    """The worker that the site's operator has in systemd."""
    options = ("-P", "prefork", "--autoscale=2,1", "--time-limit=20", "-l", "INFO")
    arguments = ("worker", "-Q", "emails", "-n", "emails@site", *options)
    with process("mysite", *arguments, log=folder / "emails.log", cwd=HERE, ready="ready.", gently=False) as running:
        yield running


@pytest.fixture(scope="session")
def web(site: Any, folder: Path) -> Iterator[Process]:
    """A worker without a `-Q`: the default queue."""
    arguments = ("worker", "-n", "web@site", "-l", "INFO")
    with process("mysite", *arguments, log=folder / "web.log", cwd=HERE, ready="ready.", gently=False) as running:
        yield running

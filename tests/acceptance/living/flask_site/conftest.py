"""The site's suite."""

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
    """Where logs are."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return tmp_path_factory.mktemp("flask")


@pytest.fixture(scope="session")
def flask_app(folder: Path) -> Any:
    """The application as the web server has it."""
    from example import create_app

    return create_app()


@pytest.fixture(scope="session")
def worker(folder: Path) -> Iterator[Process]:
    """The documented worker command."""
    arguments = ("worker", "--loglevel", "INFO", "-n", "site@flask")
    with process(
        "make_celery", *arguments, log=folder / "worker.log", cwd=HERE, ready="ready.", gently=False
    ) as running:
        yield running

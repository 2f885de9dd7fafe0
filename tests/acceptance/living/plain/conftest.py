"""The shop's suite: a broker is given, workers are its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from processes_of_celery import Process, process
from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where logs and the shop's event log are."""
    path = tmp_path_factory.mktemp("shop")
    os.environ["SHOP_EVENT_LOG"] = str(path / "event_log")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    (path / "event_log").touch()
    return path


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """The broker's server, as an operator sees it."""
    with Redis.from_url(os.environ["SHOP_BROKER"], decode_responses=True) as client:
        yield client


@pytest.fixture
def event_log(folder: Path) -> Path:
    """An empty event log."""
    path = folder / "event_log"
    path.write_text("")
    return path


@pytest.fixture(scope="session")
def main_worker(folder: Path) -> Iterator[Process]:
    """A worker of the shop's own queues, without a pool or a number: stock decides."""
    queues = "celery,emails,reports,media,region-eu"
    arguments = ("worker", "-Q", queues, "-n", "main@shop", "-l", "INFO", "--without-mingle", "--without-gossip")
    with process("shop", *arguments, log=folder / "main.log", cwd=HERE, ready="ready.", gently=False) as running:
        yield running


@pytest.fixture(scope="session")
def shop(folder: Path) -> Any:
    """The shop's application in this process: what a web server would send with."""
    from shop.celery import app

    app.loader.import_default_modules()
    return app


@pytest.fixture
def served_shop(shop: Any, main_worker: Process) -> Any:
    """The application, with the main worker running."""
    return shop

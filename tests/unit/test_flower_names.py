"""What is taken of Flower beyond its pages' classes: read in 2.2, and to be read again with the next one."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import flower
from celery.events.state import Task
from flower.api.tasks import BaseTaskHandler
from flower.app import Flower
from flower.events import EventsState
from flower.options import default_options
from flower.utils.search import SearchDocument
from flower.views import BaseHandler
from flower.views.tasks import TASK_COLUMNS

from celery_app.flower.lane_column import COLUMNS, USUAL_COLUMNS
from celery_app.flower.loader import NAVBAR, template_loader

TEMPLATES = Path(flower.__file__).parent / "templates"


def parameters(function: object) -> list[str]:
    """Return the names of a function's parameters."""
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_flower_is_the_one_that_was_read() -> None:
    """These names are nowhere promised; a newer Flower may have others, and whoever takes it in has to look."""
    assert version("flower").startswith("2.2.")
    assert parameters(Flower.start_http_server) == ["self"]
    assert EventsState.Task.__name__ in {"Task", "SeenTask"}
    assert {"routing_key", "uuid"} <= {*Task._fields}
    assert "all_text" in SearchDocument.__slots__
    assert parameters(SearchDocument.from_task) == ["task"]
    assert parameters(BaseHandler.get_broker) == ["self"]
    assert parameters(BaseTaskHandler.update_response_result) == ["self", "response", "result"]


def test_an_older_flower_is_told_in_one_line(tmp_path: Path) -> None:
    """Whoever starts one reads which it is, which it has to be, and how to get that; nothing of it is imported."""
    old = tmp_path / "flower-2.0.1.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: flower\nVersion: 2.0.1\n")
    (old / "entry_points.txt").write_text("[celery.commands]\nflower = flower.command:flower\n")
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "flower"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    said = "Error: Flower 2.0.1 is not the 2.2 that the lanes' pages need: pip install 'ezai-lanes[flower]'\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_the_usual_columns_are_those_of_flower() -> None:
    """Columns that are not Flower's own were chosen by somebody, and stay."""
    assert default_options.tasks_columns in {USUAL_COLUMNS, COLUMNS}
    assert {*USUAL_COLUMNS.split(",")} <= {*TASK_COLUMNS}
    assert {*COLUMNS.split(",")} - {*USUAL_COLUMNS.split(",")} == {"lane"}


def test_the_navigation_of_all_pages_leads_to_the_lanes_once() -> None:
    """The link comes behind those of Flower's own pages, in their list."""
    loader = template_loader(TEMPLATES)
    text = loader.dict[NAVBAR]
    assert text.count("reverse_url('lanes')") == 1
    assert text.index("reverse_url('broker')") < text.index("reverse_url('lanes')") < text.index("</ul>")
    assert {path.name for path in TEMPLATES.glob("*.html")} | {"lanes.html"} == {*loader.dict}

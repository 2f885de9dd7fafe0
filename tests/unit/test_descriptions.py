"""A description of arguments: names, types and sizes within a bound, and never a text."""

import json
from typing import Any

import pytest
from celery import Celery

from celery_app.jobs.descriptions import HIDDEN, MOST_CHARACTERS, described, description_of
from tasks import LaneTask

SAID = "Rumpelstiltskin"


@pytest.fixture
def app():
    """An application with lane tasks; nothing connects."""
    app = Celery("described", set_as_current=False, broker="memory://", backend="cache+memory://")

    @app.task(base=LaneTask, name="own.plain", shared=False)
    def plain(text: str, count: int = 0, **more: Any) -> None:
        """Take anything."""

    class Broken(LaneTask):
        abstract = True

        def describe(self, args: Any, kwargs: Any) -> str:
            raise KeyError(SAID)

    class Endless(LaneTask):
        abstract = True

        def describe(self, args: Any, kwargs: Any) -> str:
            return "Ünicode \n" * 10_000

    def echo(text: str) -> str:
        return text

    app.task(base=Broken, name="own.broken", shared=False)(echo)
    app.task(base=Endless, name="own.endless", shared=False)(echo)
    app.task(name="own.ordinary", shared=False)(echo)
    yield app
    app.close()


@pytest.mark.parametrize(
    ("args", "kwargs", "shown"),
    [
        ((SAID * 2,), {}, "text=<str, 30 characters>"),
        ((), {"text": SAID, "count": 7}, "text=<str, 15 characters>, count=<int>"),
        ((b"1234", None, 3.5), {}, "text=<bytes, 4 bytes>, count=None, #3=<float>"),
        (([SAID], {SAID: SAID}), {}, "text=<list, 1 items>, count=<dict, 1 items>"),
        ((), {f"{SAID} is ill": 1, "a" * 41: 1}, f"{HIDDEN}=<int>, {HIDDEN}=<int>"),
        ((), {}, "no arguments"),
    ],
)
def test_a_description_has_names_types_and_sizes(app, args, kwargs, shown):
    """The values stay out, and so does what somebody put into a name."""
    assert description_of(app.tasks["own.plain"], args, kwargs) == shown
    assert SAID not in shown


def test_many_arguments_are_counted(app):
    """A job with nonsense makes no long line."""
    shown = description_of(app.tasks["own.plain"], tuple(range(1_000)), {})
    assert shown.endswith(", 980 more")


@pytest.mark.parametrize("name", ["own.broken", "own.endless", "own.plain"])
def test_a_description_is_one_line_of_a_bounded_length(app, name):
    """Whatever a project's own `describe` does; one that fails loses no job and shows nothing."""
    shown = described(app, name, (SAID,), {}, in_lane=True)
    assert shown is not None
    assert SAID not in str(shown)
    assert "\n" not in shown[1]
    assert len(json.dumps(shown[1])) <= MOST_CHARACTERS + 10


def test_celerys_own_tasks_are_described_where_they_carry_ours(app):
    """The arguments of ``celery.map`` are a signature and what it is called with."""
    ours = app.tasks["own.plain"].map([SAID])
    others = app.tasks["own.ordinary"].map([SAID])
    assert described(app, ours.task, ours.args, json.loads(json.dumps(ours.kwargs)), in_lane=False)
    assert described(app, others.task, others.args, others.kwargs, in_lane=False) is None


def test_who_is_described(app):
    """Our own tasks everywhere, unknown ones in a lane, a project's others never."""
    assert described(app, "own.ordinary", (SAID,), {}, in_lane=True) is None
    assert described(app, "elsewhere", (SAID,), {}, in_lane=False) is None
    assert described(app, "elsewhere", (SAID,), {}, in_lane=True) == ("()", "#1=<str, 15 characters>")


def test_a_task_that_foresees_errors_of_its_own_foresees_ours_too(app):
    """An error of the API is one line in the log, whatever ``throws`` says."""

    @app.task(base=LaneTask, name="own.foreseeing", throws=(LookupError,), shared=False)
    def task() -> None:
        """Do nothing."""

    assert {each.__name__ for each in task.throws} == {"LookupError", "LanesError"}

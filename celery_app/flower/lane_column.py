"""The lane of each task that Flower has seen: in its list, where it can be sorted and searched by, and its details."""

from __future__ import annotations

from typing import Any

from celery.events.state import Task
from flower.events import EventsState
from flower.options import options
from flower.utils.search import SearchDocument
from flower.views.tasks import TASK_COLUMNS

from celery_app.broker.rules import LANE_NAMES

#: Flower's own columns, where nobody has chosen others; and the same with the lane.
USUAL_COLUMNS = "name,uuid,state,received,runtime,worker"
COLUMNS = "name,lane,uuid,state,received,runtime,worker"


class SeenTask(Task):
    """What Flower knows of a task, from its events."""

    #: What Flower's details of a task and its API show.
    _fields = (*Task._fields, "lane")

    @property
    def lane(self) -> str | None:
        """Its lane; None: it is in none, or none of its events was heard that says so."""
        known = vars(self)  # with the lane, where Flower has read the task from its database
        place = known.get("queue") or self.routing_key
        return place if place in LANE_NAMES else known.get("lane")


def recognise(state: Any) -> None:
    """Have the tasks that Flower has read from its database show their lanes, even those that it kept before it had us.

    Args:
        state: an `EventsState`.
    """
    for task in state.tasks.values():
        task.__class__ = SeenTask
    state.search_engine.rebuild(state.tasks.items())


def show_lanes() -> None:
    """Have tasks that are seen from now on show their lanes; columns that somebody has chosen stay as they are."""
    EventsState.Task = SeenTask
    TASK_COLUMNS["lane"] = "Lane"
    if options.tasks_columns == USUAL_COLUMNS:
        options.tasks_columns = COLUMNS
    of_task = SearchDocument.from_task

    def from_task(task: Any) -> Any:
        """A search for ``lane:batch`` is one for these words: Flower takes no prefix for a field but its own."""
        document = of_task(task)
        if getattr(task, "lane", None):
            document.all_text += f"\x00lane:{task.lane}"
        return document

    SearchDocument.from_task = from_task

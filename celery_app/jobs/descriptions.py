"""What logs, events, Flower and result backends show of a job's arguments: names and sizes, never a text."""

from __future__ import annotations

import copy
import inspect
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

#: What stands in place of arguments of which nothing can be said.
HIDDEN = "…"

#: Positional arguments as they are shown: the description of the keyword arguments names all of them.
NO_ARGUMENTS = "()"

#: Characters of a description.
MOST_CHARACTERS = 1_000

#: Arguments that are named; a task takes fewer, unless it was sent nonsense.
MOST_ARGUMENTS = 20

#: Characters of an argument's name. The keys of ``f(**{"…": …})`` may be anything, a text for instance.
LONGEST_NAME = 40

#: Tasks of Celery's own whose arguments are signatures of others, with theirs.
BUILT_IN = "celery."


def described(app: Any, name: str, args: Any, kwargs: Any, *, in_lane: bool) -> tuple[str, str] | None:
    """Return what may be shown of a job, as Celery's ``argsrepr`` and ``kwargsrepr``.

    Args:
        app: the Celery application.
        name: of the task.
        args: its positional arguments.
        kwargs: its keyword arguments.
        in_lane: whether the job goes to a lane: there, a task that this process does not know may be one of ours.

    Returns:
        None for a job that Celery may show as it likes: its task is none of ours, or says so (``shows_arguments``).
    """
    # To send a project's task to its own queue must not finalize its application, as it does not without us.
    task = (app.tasks if in_lane else app._tasks).get(name)  # noqa: SLF001
    if task is None:
        hides = in_lane or _names_hidden(app, (args, kwargs))
    else:
        hides = hides_arguments(task) or (name.startswith(BUILT_IN) and _names_hidden(app, (args, kwargs)))
    if not hides:
        return None
    try:
        text = task.describe(args, kwargs) if hides_arguments(task) else description_of(None, args, kwargs)
    except Exception:  # noqa: BLE001 - a project's own description must neither lose the job nor show what is in it
        text = HIDDEN
    return NO_ARGUMENTS, _one_line(text) or HIDDEN


def hides_arguments(task: Any) -> bool:
    """Say whether a task's jobs are described and not shown."""
    return bool(getattr(task, "in_lanes", False)) and not getattr(task, "shows_arguments", False)


def description_of(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Describe arguments by names, types and sizes: ``text=<str, 8,000 characters>``.

    Args:
        task: whose parameters give the positional arguments their names; None: not known.
        args: positional arguments.
        kwargs: keyword arguments.
    """
    known = _parameters(task) if args else []
    pairs = [*zip(_positional_names(known, len(args)), args, strict=True), *((_name(n), v) for n, v in kwargs.items())]
    shown = [f"{name}={_kind(value)}" for name, value in pairs[:MOST_ARGUMENTS]]
    more = len(pairs) - len(shown)
    return ", ".join([*shown, f"{more:,} more"] if more else shown) or "no arguments"


def describe_message(app: Any, message: Any, *, in_lane: bool) -> Any:
    """Have a message that is to be sent, and the event that says so, show no more than `described` allows.

    Args:
        app: the Celery application.
        message: as ``app.amqp.create_task_message`` made it.
        in_lane: whether it goes to a lane.
    """
    headers, _, body, event = message
    if isinstance(body, dict):  # Celery's old protocol: only its event is ours to correct, the worker does the rest
        name, args, kwargs = body.get("task"), body.get("args"), body.get("kwargs")
    else:
        name, (args, kwargs) = headers.get("task"), body[:2]
    shown = described(app, str(name), args or (), kwargs or {}, in_lane=in_lane)
    if shown is not None:
        if not isinstance(body, dict):
            headers["argsrepr"], headers["kwargsrepr"] = shown
        if event:
            event["args"], event["kwargs"] = shown
    return message


def store_descriptions(backend: Any) -> Any:
    """Have a result backend that stores arguments beside results (``result_extended``) store their description.

    Args:
        backend: of any kind, perhaps a project's own that other tasks use, too; these are not touched.

    Returns:
        The same backend.
    """
    if "lanes_described" not in vars(backend):
        backend.lanes_described = True
        store = backend.store_result

        def store_described(
            task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **options: Any
        ) -> Any:
            return store(task_id, result, state, traceback=traceback, request=_shown(backend.app, request), **options)

        backend.store_result = store_described
    return backend


def _shown(app: Any, request: Any) -> Any:
    """Return a request whose arguments are their description; the task in hand keeps its own."""
    args, kwargs = getattr(request, "args", None), getattr(request, "kwargs", None)
    if request is None or (args is None and kwargs is None):
        return request
    name = getattr(request, "task", None) or getattr(app.current_task, "name", None)
    shown = described(app, str(name), args or (), kwargs or {}, in_lane=False)
    if shown is None:
        return request
    request = copy.copy(request)
    request.args, request.kwargs = shown
    request.argsrepr, request.kwargsrepr = shown  # django-celery-results stores these
    return request


def _names_hidden(app: Any, value: Any) -> bool:
    """Say whether there is a signature of one of our tasks in a value."""
    known = app._tasks  # noqa: SLF001 - likewise
    return any(hides_arguments(known.get(name)) for name in _signatures(value))


def _signatures(value: Any) -> Iterator[str]:
    """Yield the tasks of the signatures in a value; what a project pickles may be deep, or lead back to itself."""
    waiting, seen = [value], set()
    while waiting:
        value = waiting.pop()
        if not isinstance(value, (dict, list, tuple)) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            if isinstance(value.get("task"), str):
                yield value["task"]
            value = value.values()
        waiting.extend(value)


def _parameters(task: Any) -> list[str]:
    try:
        parameters = inspect.signature(task.run).parameters.values()
    except (AttributeError, TypeError, ValueError):
        return []
    return [each.name for each in parameters if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}]


def _positional_names(known: Sequence[str], count: int) -> Iterable[str]:
    return [*known[:count], *(f"#{number}" for number in range(len(known) + 1, count + 1))]


def _name(name: Any) -> str:
    return name if isinstance(name, str) and name.isidentifier() and len(name) <= LONGEST_NAME else HIDDEN


def _kind(value: Any) -> str:
    """Return type and size; a number may be somebody's account, so no value is shown but None."""
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"<str, {len(value):,} characters>"
    if isinstance(value, (bytes, bytearray)):
        return f"<{type(value).__name__}, {len(value):,} bytes>"
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        return f"<{type(value).__name__}, {len(value):,} items>"
    return f"<{type(value).__name__}>"


def _one_line(text: Any) -> str:
    """Return a description as a line that JSON does not make longer than the bound many times over."""
    line = " ".join(str(text)[: 2 * MOST_CHARACTERS].split())
    while len(line) > 1 and len(json.dumps(line)) > MOST_CHARACTERS:
        line = f"{line[: len(line) * 3 // 4]}…"
    return line

"""The task around the Messages API."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

from celery import shared_task
from celery.exceptions import TaskPredicate

from celery_app.client.options import refuse_options
from celery_app.errors import InvalidRequest, LanesError, NotAMessage, UnforeseenFailure
from celery_app.routing import MODEL
from celery_app.settings import settings_of
from celery_app.stand_in import stand_in
from tasks.base import LaneTask
from tasks.redaction import content_type_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anthropic.resources.messages import Messages
    from celery.result import AsyncResult

    from tasks.admission import Call

    MakeCall: TypeAlias = Callable[["MessageTask", Mapping[str, Any], float, Call], dict[str, Any]]


class MessageTask(LaneTask):
    """A task whose keyword arguments are those of the Messages API."""

    abstract = True
    #: Whatever a producer says of a job's arguments is not shown either.
    hides_arguments = True
    #: The worker's log and Flower show the beginning of a result; one character of an answer's JSON is its bracket.
    resultrepr_maxsize = 1
    throws = (*LaneTask.throws, InvalidRequest, UnforeseenFailure)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> AsyncResult:
        """Submit a call after checking its parameters, with a description that shows none of its text.

        Raises:
            InvalidRequest: naming the first bad field; nothing has been queued then.
        """
        from tasks.request import check_request, describe_request

        if args:
            raise InvalidRequest(path="args", problem="a request is all keywords; a step of a chain begins with .si()")
        if options.get("serializer") not in {None, "json"}:
            raise InvalidRequest(path="serializer", problem="workers accept nothing but json")
        refuse_options(kwargs or {}, "apply_async")
        check_request(kwargs or {})
        options["argsrepr"], options["kwargsrepr"] = "()", describe_request(kwargs)
        options["headers"] = {MODEL: kwargs["model"], **(options.get("headers") or {})}
        return super().apply_async(args, kwargs, **options)


@shared_task(bind=True, base=MessageTask, name="tasks.create_message")
def create_message(self: MessageTask, **params: Any) -> dict[str, Any]:
    """Create a message; the keyword arguments are those of the Messages API, the result is its message as a dict."""
    return perform(self, params, _create)


def perform(task: MessageTask, params: Mapping[str, Any], make_call: MakeCall) -> dict[str, Any]:
    """Make one call in the lanes' way: checked, admitted by the budget, with what is left of its deadline.

    Args:
        task: with the job in hand.
        params: of the Messages API.
        make_call: makes the call within a number of seconds, tells the `Call` of it, and returns the message.

    Raises:
        celery.exceptions.Retry: the job is back in its lane.
        LanesError: the job has failed.
    """
    from celery_app.budget import cost_of
    from tasks.request import check_request

    check_request(params)  # a job sent by name was not checked on its way in
    standing_in = stand_in()
    if standing_in is not None:
        return standing_in.perform(task, params)
    try:
        with task.admit_cost(cost_of(params), params["model"]) as call:
            return make_call(task, params, task.seconds_left(), call)
    except Exception as exc:
        if isinstance(exc, LanesError | TaskPredicate):
            raise
        raise UnforeseenFailure(kind=type(exc).__name__) from None


def _create(task: MessageTask, params: Mapping[str, Any], timeout: float, call: Call) -> dict[str, Any]:
    from tasks.deadline import deadline

    with deadline(timeout):
        # The SDK refuses a large max_tokens without streaming unless it is given a timeout.
        response = api_of(task).with_raw_response.create(**sdk_arguments(params), timeout=timeout).http_response
    message = message_of(response)
    call.answered(message, response.headers)
    return message


def api_of(task: LaneTask) -> Messages:
    """Return the SDK's Messages API with the key of the job's lane.

    Raises:
        LanesError: there is no key.
    """
    from tasks.clients import client_for

    settings = settings_of(task.app)
    key = settings.api_key(task.lane)
    if key is None:
        raise LanesError(f"there is no API key for the lane {task.lane.name}; set EZAI_API_KEY")
    return client_for(key, settings.base_url).messages


def sdk_arguments(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return `params` with all that the SDK's method does not know (``temperature``, …) moved to ``extra_body``."""
    known = _sdk_parameters()
    unknown = {name: value for name, value in params.items() if name not in known}
    arguments = {name: value for name, value in params.items() if name in known}
    if unknown:
        arguments["extra_body"] = {**unknown, **(arguments.get("extra_body") or {})}
    return arguments


_known_parameters: frozenset[str] = frozenset()


def _sdk_parameters() -> frozenset[str]:
    global _known_parameters  # noqa: PLW0603 - a cache that needs no lock: every thread computes the same
    if not _known_parameters:
        from anthropic.resources.messages import Messages

        _known_parameters = frozenset(inspect.signature(Messages.create).parameters) - {"self"}
    return _known_parameters


def message_of(response: Any) -> dict[str, Any]:
    """Return the message in an answer of status 200.

    Raises:
        NotAMessage: for a login page, an empty body, a half JSON: whatever a gateway may send with status 200.
    """
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and body.get("type") == "message":
        return body
    raise NotAMessage(status=response.status_code, content_type=content_type_of(response.headers))

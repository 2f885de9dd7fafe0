"""The task around the Messages API."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from celery import shared_task
from celery.exceptions import TaskPredicate

from celery_app.broker.packet import cost_header
from celery_app.errors import InvalidRequest, LanesError, UnforeseenFailure
from celery_app.jobs.options import refuse_options
from celery_app.routing import COST, MODEL, PREFIX
from celery_app.settings import settings_of
from celery_app.stand_in import refuse_eager, stand_in
from tasks.base import LaneTask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anthropic.resources.messages import AsyncMessages
    from celery.result import AsyncResult

    from tasks.call import Call
    from tasks.job import Job

    MakeCall: TypeAlias = Callable[[Job, Mapping[str, Any], float, Call], dict[str, Any]]


class MessageTask(LaneTask):
    """A task whose keyword arguments are those of the Messages API."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> AsyncResult:
        """Submit a call after checking its parameters.

        Raises:
            InvalidRequest: naming the first bad field; nothing has been queued then.
            EagerRefused: ``task_always_eager`` is set, and `celery_app.testing` does not stand in for the lanes.
        """
        from tasks.request import check_request

        if args:
            raise InvalidRequest(path="args", problem="a request is all keywords; a step of a chain begins with .si()")
        if options.get("serializer") not in {None, "json"}:
            raise InvalidRequest(path="serializer", problem="workers accept nothing but json")
        refuse_options(kwargs or {}, "apply_async")
        check_request(kwargs or {})
        refuse_eager(self.app)
        return super().apply_async(args, kwargs, **options)

    def _stated(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        from celery_app.budget import cost_of, metered_model, prefix_of
        from celery_app.budget.prices import priced

        settings, model = settings_of(self.app), metered_model(kwargs)
        stated = {MODEL: model, COST: cost_header(priced(settings, model, cost_of(kwargs)))}
        asks = any(lane.prompt_caches for lane in settings.lanes)
        return {**stated, PREFIX: prefix_of(kwargs)} if asks else stated

    def describe(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return model, number of messages and max_tokens."""
        from tasks.request import describe_request

        return describe_request(kwargs)


@shared_task(bind=True, base=MessageTask, name="tasks.create_message")
def create_message(self: MessageTask, **params: Any) -> dict[str, Any]:
    """Create a message; the keyword arguments are those of the Messages API, the result is its message as a dict."""
    return perform(self, params, _create)


def perform(task: MessageTask, params: Mapping[str, Any], make_call: MakeCall) -> dict[str, Any]:
    """Make one call in the lanes' way: checked, admitted by the budget, with what is left of its deadline.

    Args:
        task: with the job in hand.
        params: of the Messages API.
        make_call: makes a job's call within a number of seconds, tells the `Call` of it, and returns the message.

    Raises:
        celery.exceptions.Retry: the job is back in its lane.
        LanesError: the job has failed.
    """
    from celery_app.budget import cost_of, metered_model
    from tasks.admitted_block import admitted_block
    from tasks.request import check_request

    check_request(params)  # a job sent by name was not checked on its way in
    standing_in = stand_in()
    if standing_in is not None:
        return standing_in.perform(task, params)
    try:
        with admitted_block(task.job, cost_of(params), metered_model(params)) as call:
            call.ends_job = True
            return make_call(task.job, params, task.seconds_left(), call)
    except Exception as exc:
        if isinstance(exc, LanesError | TaskPredicate):
            raise
        raise UnforeseenFailure(kind=type(exc).__name__) from None


def _create(job: Job, params: Mapping[str, Any], timeout: float, call: Call) -> dict[str, Any]:
    from tasks.clients import call_timeout
    from tasks.incoming import message_in
    from tasks.loop import run

    # The SDK refuses a large max_tokens without streaming unless it is given a timeout.
    arguments = {**sdk_arguments(params), "timeout": call_timeout(timeout)}
    response = run(partial(api_of(job).with_raw_response.create, **arguments), timeout).http_response
    message = message_in(response, response.content, params["model"])
    call.answered(message, response.headers)
    return message


def api_of(job: Job) -> AsyncMessages:
    """Return the SDK's Messages API with the key of the job's lane.

    Raises:
        LanesError: there is no key.
    """
    from tasks.clients import client_for

    settings = settings_of(job.app)
    key = settings.api_key(job.lane)
    if key is None:
        raise LanesError(f"there is no API key for the lane {job.lane.name}; set EZAI_API_KEY")
    return client_for(key, settings.base_url).messages


def sdk_arguments(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return `params` as the SDK's method takes them.

    What it does not know (``temperature``, …) moves to ``extra_body``, and ``betas`` to the header that the SDK's own
    beta method would send them in.
    """
    known = _sdk_parameters()
    unknown = {name: value for name, value in params.items() if name not in known}
    arguments = {name: value for name, value in params.items() if name in known}
    betas = unknown.pop("betas", None)  # a list, checked
    if betas:
        arguments["extra_headers"] = _with_betas(arguments.get("extra_headers") or {}, betas)
    if unknown:
        arguments["extra_body"] = {**unknown, **(arguments.get("extra_body") or {})}
    return arguments


def _with_betas(headers: Mapping[str, str], betas: list[str]) -> dict[str, str]:
    from celery_app.budget.variant import BETA_HEADER

    said = [value for name, value in headers.items() if name.lower() == BETA_HEADER]
    others = {name: value for name, value in headers.items() if name.lower() != BETA_HEADER}
    return {**others, BETA_HEADER: ",".join([*said, *betas])}


_known_parameters: frozenset[str] = frozenset()


def _sdk_parameters() -> frozenset[str]:
    global _known_parameters  # noqa: PLW0603 - a cache that needs no lock: every thread computes the same
    if not _known_parameters:
        from anthropic.resources.messages import Messages

        _known_parameters = frozenset(inspect.signature(Messages.create).parameters) - {"self"}
    return _known_parameters

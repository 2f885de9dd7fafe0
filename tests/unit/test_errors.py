import inspect
from typing import Any

import pytest
from celery.backends.base import Backend

from celery_app import create_app, errors
from celery_app.settings import Settings

SAMPLES: list[tuple[type[errors.LanesError], dict[str, Any]]] = [
    (errors.InvalidRequest, {"path": "messages.0.role", "problem": "unknown"}),
    (errors.DeadlineExceeded, {"where": "in the queue", "allowed": 30.0}),
    (errors.BrokerRefused, {"url": "redis://localhost", "reason": "WRONGPASS"}),
    (errors.BrokerTakesNoWrites, {"url": "redis://localhost", "reason": "used memory > 'maxmemory'"}),
    (errors.UnknownJob, {"task_id": "made-up"}),
    (errors.CallTimeout, {"timeout": 3.0}),
    (errors.NotAMessage, {"status": 200, "content_type": "text/html"}),
    (errors.ApiError, {"status": 400, "type": "invalid_request_error", "text": "no {braces} please"}),
    (errors.ApiUnreachable, {"reason": "refused"}),
    (errors.LaneFull, {"lane": "batch", "depth": 5, "capacity": 5, "waited": 1.0}),
]


@pytest.mark.parametrize(("kind", "details"), SAMPLES, ids=lambda value: getattr(value, "__name__", ""))
def test_an_error_survives_the_result_backend(kind, details):
    """Whoever waits for a result gets the error that was raised, with its message, through JSON."""
    backend = Backend(create_app(Settings()), serializer="json")
    raised = kind(**details)

    received = backend.exception_to_python(backend.decode(backend.encode(backend.prepare_exception(raised))))

    assert type(received) is kind
    assert str(received) == str(raised)


def test_every_error_has_a_message_of_its_own():
    """The docstring is the message, so that no class can forget it."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.LanesError)]

    assert all(kind.__doc__ for kind in kinds)
    assert len({kind.__doc__ for kind in kinds}) == len(kinds)

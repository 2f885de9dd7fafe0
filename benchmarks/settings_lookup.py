"""What `settings_of(app)` costs: it is asked several times a job, so it has to be cheap while nothing changes.

Run: python benchmarks/settings_lookup.py
"""

from __future__ import annotations

import itertools
import os
import sys
import timeit
from types import ModuleType
from typing import TYPE_CHECKING, Any

from celery import Celery

from celery_app import install
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

#: Variables of others: a pod in a namespace with twenty Services has about as many.
STRANGERS = 150
#: Calls that one figure is taken from, and how often it is taken; the best counts.
CALLS, ROUNDS = 5_000, 5

CONFIGURED = {"LANES": {"batch": {"capacity": 500}}, "EZAI_API_KEY": "a-key", "TASK_TIME_LIMIT": 30}


def applications() -> dict[str, Celery]:
    """Return applications that are configured in the usual ways."""
    module = ModuleType("benchmark_settings")
    spaced = {f"CELERY_{key}": value for key, value in CONFIGURED.items()}
    vars(module).update({"SECRET_KEY": "x", "USE_TZ": True, **spaced})
    sys.modules[module.__name__] = module
    os.environ["DJANGO_SETTINGS_MODULE"] = module.__name__
    plain = {key.lower(): value for key, value in CONFIGURED.items()}
    return {
        "nothing configured": application(None),
        "a dict": application(plain),
        "a module": application(module, "CELERY"),
        "Django's settings": application("django.conf:settings", "CELERY"),
        "an instance": application(type("Config", (), plain)()),
    }


def application(config: Any, namespace: str | None = None) -> Celery:
    """Return an application with lanes."""
    app = Celery("benchmark", set_as_current=False, fixups=[])
    if config is not None:
        app.config_from_object(config, namespace=namespace)
    install(app)
    return app


def microseconds(call: Callable[[], object], calls: int) -> float:
    """Return what one call takes."""
    return min(timeit.repeat(call, number=calls, repeat=ROUNDS)) / calls * 1e6


def main() -> None:
    """Print a line for each way to configure."""
    os.environ.update({f"SOMEBODY_{number}": "somewhere" for number in range(STRANGERS)})
    numbers = map(str, itertools.count(1))
    for name, app in applications().items():

        def changed(variable: str, app: Celery = app) -> object:
            os.environ[variable] = next(numbers)
            return settings_of(app)

        settings_of(app)
        same = microseconds(lambda app=app: settings_of(app), CALLS)  # type: ignore[misc]
        strangers = microseconds(lambda: changed("SOMEBODY_1"), CALLS // 50)
        ours = microseconds(lambda: changed("EZAI_RPM"), CALLS // 50)
        print(f"{name:20} same {same:6.1f} µs, a stranger's variable changed {strangers:5.0f}, one of ours {ours:5.0f}")
        del os.environ["EZAI_RPM"]


if __name__ == "__main__":
    main()

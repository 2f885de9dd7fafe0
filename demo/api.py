"""The API that the stack's workers call: the real one, or a simulated EzAI as a child of ours."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from celery_app.errors import ApiUnreachable
from demo.errors import ApiKeyMissing, ApiKeyRefused, PackageMissing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from celery_app.settings import Limits, Settings
    from demo.child import Child
    from demo.group import ProcessGroup

#: Seconds for the one call that checks a key.
CHECK_SECONDS = 10.0
#: Seconds from start to the simulator's ready line: it takes half of one.
READY_SECONDS = 15.0
#: What the workers present to the simulator, which takes any key.
SIMULATED_KEY = "simulated"

REFUSALS = frozenset({401, 403})
#: From here on the API has a problem of its own.
SERVER_ERROR = 500


def is_real(settings: Settings) -> bool:
    """Whether there is any API key, so that calls are to go to the real API.

    Raises:
        ApiKeyMissing: a lane has none while another has one.
    """
    missing = [lane.name for lane in settings.lanes if settings.api_key(lane) is None]
    if missing and len(missing) < len(settings.lanes):
        raise ApiKeyMissing(lane=missing[0])
    return not missing


def check_keys(settings: Settings) -> None:
    """Make one cheap call with each key; an API that does not list models passes, unless it refuses the key.

    Raises:
        ApiKeyRefused: naming where the key was set, never the key.
        ApiUnreachable: no answer within 10 s, or one that says the API is down.
    """
    for key in dict.fromkeys(filter(None, map(settings.api_key, settings.lanes))):
        status = _status_of_models(key, settings.base_url)
        if status in REFUSALS:
            raise ApiKeyRefused(url=settings.base_url, status=status, variables=_variables_with(key))
        if status >= SERVER_ERROR:
            raise ApiUnreachable(reason=f"{settings.base_url} answers with status {status}")


def _status_of_models(key: str, base_url: str) -> int:
    import anthropic

    from tasks.clients import client_for
    from tasks.loop import OutOfTime, run

    client = client_for(key, base_url)
    try:
        # Raw: a gateway's answer need not be a list of models.
        run(lambda: client.models.with_raw_response.list(limit=1), CHECK_SECONDS)
    except anthropic.APIStatusError as error:
        return error.status_code
    except (anthropic.APITimeoutError, OutOfTime):
        raise ApiUnreachable(reason=f"{base_url} did not answer within {CHECK_SECONDS:.0f} s") from None
    except anthropic.APIConnectionError as error:
        raise ApiUnreachable(reason=f"{base_url}: {error.__cause__ or error}") from None
    return 200


def _variables_with(key: str) -> str:
    names = [name for name, value in os.environ.items() if name.startswith("EZAI_API_KEY") and value == key]
    return " and ".join(sorted(names)) or "the application's configuration"


class SimulatedEzai:
    """The simulated EzAI on a free port of 127.0.0.1."""

    title = "EzAI (simulated)"
    ready_seconds = READY_SECONDS

    def __init__(self, settings: Settings, **behaviour: float) -> None:
        """Describe it; nothing is started yet.

        Args:
            settings: limits the operator states for the API are the simulator's limits.
            behaviour: fields of the simulator's `Behaviour`.

        Raises:
            PackageMissing: tornado is not installed.
        """
        if find_spec("tornado") is None:
            raise PackageMissing(package="tornado", extra="embedded", otherwise="set EZAI_API_KEY")
        self._options = {"port": 0, **behaviour, "limits": json.dumps(_limits(settings))}
        self._log: Path | None = None

    @property
    def url(self) -> str:
        """The API's root; empty until the simulator is ready."""
        return _ready_url(self._log.read_text()) if self._log else ""

    def start(self, group: ProcessGroup, environ: Mapping[str, str]) -> Child:
        """Start it; its first line of output tells the port that it took."""
        options = {f"--{name.replace('_', '-')}": str(value) for name, value in self._options.items()}
        arguments = [argument for option in options.items() for argument in option]
        command = [sys.executable, "-m", "demo.simulator", "--exit-with-parent", *arguments]
        child = group.start("The simulated EzAI", "ezai", command, environ)
        self._log = child.log
        return child

    def is_ready(self) -> bool:
        """Whether it has told its URL."""
        return bool(self.url)


def _ready_url(output: str) -> str:
    line, newline, _ = output.partition("\n")
    return str(json.loads(line)["url"]) if newline and line.startswith("{") else ""


def _limits(settings: Settings) -> dict[str, dict[str, int]]:
    table: dict[str, Limits] = {**settings.model_limits, "*": settings.limits}
    return {pattern: stated for pattern, limits in table.items() if (stated := _stated(limits))}


def _stated(limits: Limits) -> dict[str, Any]:
    stated = limits.model_dump(exclude_none=True)
    return {"in_flight" if name == "concurrency" else name: value for name, value in stated.items()}

"""What can go wrong with the stack and the demo."""

from __future__ import annotations

from celery_app.errors import LanesError


class PackageMissing(LanesError):
    """{package} is not installed: pip install 'ezai-lanes[{extra}]', or {otherwise}."""

    package: str
    extra: str


class EmbeddedBrokerUnusable(LanesError):
    """The embedded broker cannot run here ({reason}): set CELERY_BROKER_URL."""

    reason: str


class PortTaken(LanesError):
    """Port {port} is not free for {what} ({reason}): choose another with {option}."""

    port: int


class CommandNotFound(LanesError):
    """{command} cannot be run: {reason}."""

    command: str
    reason: str


class ApplicationNotFound(LanesError):
    """Workers cannot be started for {app}: `-A {name}` does not lead to it; say where it is, as in `celery -A proj`."""

    name: str


class WorkerNameTaken(LanesError):
    """A worker named {name} answers on this broker already: is another stack running?"""

    name: str


class ChildEnded(LanesError):
    """{name} ended unexpectedly with status {status}{log}"""  # noqa: D415 - it ends in the log's last lines

    name: str
    status: int


class NotReady(LanesError):
    """{name} was not ready within {seconds:.0f} s{log}"""  # noqa: D415 - likewise

    name: str
    seconds: float


class GuardEnded(LanesError):
    """The guard process was killed; without it the children might outlive this command, so they were stopped."""


class ApiKeyMissing(LanesError):
    """There is no API key for the lane {lane}: set EZAI_API_KEY, or none at all to use the simulated EzAI."""

    lane: str


class ApiKeyRefused(LanesError):
    """The API at {url} refused the key in {variables} with status {status}."""

    url: str
    status: int


class DocumentsUnreadable(LanesError):
    """{place}: {problem}."""

    place: str
    problem: str


class ConfirmationNeeded(LanesError):
    """With a real key this makes up to {calls:,} API calls that cost money: say so with --yes."""

    calls: int

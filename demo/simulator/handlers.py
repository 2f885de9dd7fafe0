"""Handlers of every path but /v1/messages."""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING, Any

from tornado.web import HTTPError, RequestHandler

from demo.simulator.errors import JSON_TYPE, ApiError, invalid
from demo.simulator.fields import InvalidChange
from demo.simulator.prompts import countable, decoded
from demo.simulator.usage import uncached

if TYPE_CHECKING:
    from types import TracebackType

    from demo.simulator.simulator import Simulator

# "Maximum request size is 32 MB" (platform.claude.com, errors).
MAX_BODY_BYTES = 32 * 1024 * 1024

_numbers = count(1)


class ApiHandler(RequestHandler):
    """A path of the API: every answer has a request-id, every refusal the API's own error body."""

    def initialize(self, simulator: Simulator) -> None:
        """Take the state that all handlers of a server share."""
        self.simulator = simulator

    def set_default_headers(self) -> None:
        """Give the answer its id."""
        self.request_id = f"req_sim{next(_numbers):020}"
        self.set_header("request-id", self.request_id)

    def compute_etag(self) -> None:
        """Leave out the hash that tornado would compute of each answer."""

    def body(self) -> bytes:
        """Give the request's body.

        Raises:
            ApiError: 413, it is larger than the real API takes.
        """
        if len(self.request.body) > MAX_BODY_BYTES:
            raise ApiError(413, "Request exceeds the maximum size")
        return self.request.body

    def reply(self, value: Any) -> None:
        """Answer 200 with JSON."""
        self.set_header("Content-Type", JSON_TYPE)
        self.finish(json.dumps(value))

    def refuse(self, error: ApiError) -> None:
        """Answer with an error of the API."""
        self.set_status(error.status)
        self.set_header("Content-Type", error.content_type)
        self.finish(error.body(self.request_id))

    def authenticate(self) -> str:
        """Give the API key of the request.

        Raises:
            ApiError: 401, the key is missing or not among those accepted.
        """
        headers = self.request.headers
        key = headers.get("x-api-key") or headers.get("Authorization", "").removeprefix("Bearer ")
        if not key:
            raise ApiError(401, "x-api-key header is required")
        if self.simulator.keys and key not in self.simulator.keys:
            raise ApiError(401, "invalid x-api-key")
        return key

    def write_error(self, status_code: int, **_: Any) -> None:
        """Put tornado's own refusals, such as 405, into the API's form."""
        self.refuse(ApiError(status_code, self._reason))

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Log defects of the simulator, but no refusals."""
        if not isinstance(value, HTTPError):
            super().log_exception(typ, value, tb)


class UnknownPathHandler(ApiHandler):
    """Any path that the API does not have."""

    def prepare(self) -> None:
        """Refuse, whatever the method."""
        self.refuse(ApiError(404, "Not found"))


class HealthHandler(ApiHandler):
    """Whether the simulator is up."""

    def get(self) -> None:
        """Answer that it is."""
        self.reply({"status": "ok"})


class CountTokensHandler(ApiHandler):
    """POST /v1/messages/count_tokens; it has its own limits at Anthropic, and none here."""

    def post(self) -> None:
        """Count the tokens of a prompt."""
        try:
            self.authenticate()
            self.reply({"input_tokens": uncached(countable(self.body())).input_tokens})
        except ApiError as error:
            self.refuse(error)


class ModelsHandler(ApiHandler):
    """GET /v1/models, which clients ask to find out whether their key is good."""

    def get(self) -> None:
        """List the one model that stands for all: the simulator answers under any name."""
        try:
            self.authenticate()
            self.reply({"data": [{"type": "model", "id": "simulated", "display_name": "Simulated"}], "has_more": False})
        except ApiError as error:
            self.refuse(error)


class ControlHandler(ApiHandler):
    """Behaviour and limits, to look at and to change while running."""

    def get(self) -> None:
        """Show them."""
        self.reply(self.simulator.settings())

    def patch(self) -> None:
        """Change some, and show them all."""
        try:
            self.simulator.change(decoded(self.body()))
        except ApiError as error:
            self.refuse(error)
        except InvalidChange as error:
            self.refuse(invalid(str(error)))
        else:
            self.reply(self.simulator.settings())


class CallsHandler(ApiHandler):
    """The log of calls."""

    def get(self) -> None:
        """Show the summary, and unless `?summary=1` the calls."""
        log = self.simulator.log
        wants_calls = self.get_query_argument("summary", "0") in {"", "0"}
        self.reply({**log.summary(), "calls": log.calls()} if wants_calls else log.summary())

    def delete(self) -> None:
        """Forget the calls."""
        self.simulator.log.clear()
        self.set_status(204)

"""ApiHandler: what all paths of the simulated API share: request ids, keys and the form of errors."""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from tornado.web import RequestHandler

from demo.simulator.faults import JSON_TYPE, SimulatedError

if TYPE_CHECKING:
    from tornado.http1connection import HTTP1Connection

    from demo.simulator.batch_desk import BatchDesk
    from demo.simulator.simulator import Simulator

_numbers = count(1)


class ApiHandler(RequestHandler):
    """A path of the API: every answer has a request-id, every refusal the API's own error body."""

    def initialize(self, simulator: Simulator, desk: BatchDesk) -> None:
        """Take the state that all handlers of a server share."""
        self.simulator, self.desk = simulator, desk

    def set_default_headers(self) -> None:
        """Give the answer its id."""
        self.request_id = f"req_sim{next(_numbers):020}"
        self.set_header("request-id", self.request_id)

    def compute_etag(self) -> None:
        """Leave out the hash that tornado would compute of each answer."""

    def reply(self, value: Any) -> None:
        """Answer 200 with JSON."""
        self.set_header("Content-Type", JSON_TYPE)
        self.finish(json.dumps(value))

    def authenticate(self) -> str:
        """Give the API key of the request, or raise 401: it is missing or not among those accepted."""
        headers = self.request.headers
        key = headers.get("x-api-key") or headers.get("Authorization", "").removeprefix("Bearer ")
        if not key or (self.simulator.keys and key not in self.simulator.keys):
            raise SimulatedError(401, "invalid x-api-key" if key else "x-api-key header is required")
        return key

    @property
    def connection(self) -> HTTP1Connection:
        """The connection of the call; its `close` is a fault as the client sees it."""
        return cast("HTTP1Connection", self.request.connection)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Put an error into the API's form, whether it is the API's or one of tornado's own, such as 405."""
        error = kwargs.get("exc_info", (None, None))[1]
        self.refuse(error if isinstance(error, SimulatedError) else SimulatedError(status_code, self._reason))

    def refuse(self, error: SimulatedError) -> None:
        """Answer with an error of the API."""
        self.set_status(error.status_code)
        self.set_header("Content-Type", error.content_type)
        self.finish(error.body(self.request_id))

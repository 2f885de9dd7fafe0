"""The lanes' page, with what it fetches and what it changes; and those pages of Flower's that are ours in part."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flower.api.tasks import GetQueueLengths, TaskResult
from flower.app import rewrite_handler
from flower.views import BaseHandler
from flower.views.broker import BrokerView
from redis.exceptions import RedisError
from tornado.escape import json_decode
from tornado.web import HTTPError, StaticFileHandler, authenticated, url

from celery_app.errors import BrokerUnreachable, LanesError
from celery_app.flower.changes import change
from celery_app.flower.counts import QueueCounts
from celery_app.flower.loader import template_loader
from celery_app.flower.protection import has_login
from celery_app.flower.shown import Shown
from celery_app.flower.watch import SILENT, Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATIC = Path(__file__).parent / "static"


def add_pages(flower: Any, app: Any) -> None:
    """Put the pages before Flower's own.

    Args:
        flower: its Tornado application, before it listens.
        app: a Celery application with lanes.
    """
    watch = Watch(Shown(app).look)
    lanes = {"watch": watch, "app": app}
    pages = [
        url(r"/lanes", LanesPage, lanes, name="lanes"),
        url(r"/lanes/data", LanesData, lanes),
        url(r"/lanes/change", LanesChange, lanes),
        url(r"/lanes/static/(.*)", StaticFileHandler, {"path": str(_STATIC)}),
        url(r"/broker", Queues, {"watch": watch}),
        url(r"/api/queues/length", QueueLengths, {"watch": watch}),
        url(r"/api/task/result/(.+)", Result),
    ]
    prefix = flower.options.url_prefix
    flower.add_handlers(".*", [rewrite_handler(page, prefix) for page in pages] if prefix else pages)
    flower.settings["template_loader"] = template_loader(Path(flower.settings["template_path"]))


class _LanesHandler(BaseHandler):
    """Flower asks who somebody is, and for what comes from another site's page."""

    def initialize(self, watch: Watch, app: Any) -> None:
        """Take what looks at the lanes, and the application that has them."""
        self._watch, self._app = watch, app

    @property
    def why_not(self) -> str:
        """Why nobody may change anything here; empty: whoever is here may."""
        options = self.application.options
        if options.read_only:
            return "Flower is in read-only mode"
        return "" if has_login(options) else "only who logs in may change anything: set basic_auth or auth"

    @property
    def who(self) -> str:
        """The login's name: what an OAuth provider says, or who knows the password."""
        if isinstance(self.current_user, str):
            return self.current_user
        words = self.request.headers.get("Authorization", "").partition(" ")[2]
        try:
            return base64.b64decode(words).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return "somebody"


class LanesPage(_LanesHandler):
    """The page; its figures are fetched."""

    @authenticated
    def get(self) -> None:
        """Show it, and in no other site's page: a click there would be one here."""
        self.set_header("Content-Security-Policy", "frame-ancestors 'self'")
        self.render("lanes.html", why_not=self.why_not)


class LanesData(_LanesHandler):
    """The page's figures."""

    @authenticated
    async def get(self) -> None:
        """Answer within some seconds, whatever the broker does."""
        seen = await self._watch.seen()
        self.set_header("Cache-Control", "no-store")
        self.write(
            {"shown": seen.shown, "age_s": seen.age_s, "away_s": seen.away_s, "problem": seen.problem}
            | {"who": self.who if has_login(self.application.options) else None}
        )


class LanesChange(_LanesHandler):
    """What the page's buttons do."""

    @authenticated
    async def post(self) -> None:
        """Change something, and answer with nothing; or with what is wrong, in one line."""
        if self.why_not:
            raise HTTPError(403, self.why_not)
        wish = self._wish()
        try:
            await self._watch.run(change, self._app, wish, f"{self.who} (Flower)")
        except BrokerUnreachable as exc:
            self._refuse(503, str(exc))
        except LanesError as exc:
            self._refuse(400, str(exc))
        except RedisError as exc:
            self._refuse(503, f"the broker refuses it: {exc}")
        except TimeoutError:
            self._refuse(503, f"{SILENT}: look whether it is done")
        else:
            self.set_status(204)

    def _wish(self) -> Mapping[str, Any]:
        """Another site's form cannot send this type, and a script of its would have to ask first."""
        if self.request.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            raise HTTPError(415)
        try:
            wish = json_decode(self.request.body)
        except ValueError:
            wish = None
        if not isinstance(wish, dict):
            raise HTTPError(400)
        return wish

    def _refuse(self, status: int, problem: str) -> None:
        self.set_status(status)
        self.write({"problem": problem})


class _CountingLanes(BaseHandler):
    """A page that asks Flower's broker how long the queues are."""

    def initialize(self, watch: Watch) -> None:
        """Take what looks at the lanes."""
        self._watch = watch

    def get_broker(self) -> QueueCounts:
        """Return what counts lanes, too."""
        return QueueCounts(super().get_broker(), self._watch)


class Queues(_CountingLanes, BrokerView):
    """The page of queues, with all lanes."""


class QueueLengths(_CountingLanes, GetQueueLengths):
    """The same of the API."""


class Result(TaskResult):
    """A task's result, unless logs and events leave it out, too: an answer is as private as its prompt."""

    def update_response_result(self, response: dict[str, Any], result: Any) -> None:
        """Say nothing of the answer of a lane task; one that sets ``resultrepr_maxsize`` shows it."""
        if self._is_private(result.id):
            response["result"] = None
        else:
            super().update_response_result(response, result)

    def _is_private(self, task_id: str) -> bool:
        seen = self.application.events.state.tasks.get(task_id)
        if seen is None or seen.name is None:
            return True  # it may be a lane's
        task = self.capp.tasks.get(seen.name)
        if seen.lane is None and task is None:
            return bool(getattr(self.capp, "has_only_lanes", False))
        shows = bool(getattr(task, "resultrepr_maxsize", 0))
        return not (shows and (seen.lane is None or getattr(task, "in_lanes", False)))

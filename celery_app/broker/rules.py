"""What a channel has to know of the lanes, looked up when it is needed: settings may change after a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_app.lanes import LANES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery_app.lanes import Lane

#: The lanes' queues; which there are is no setting.
LANE_NAMES = tuple(lane.name for lane in LANES)


class LaneRules:
    """The lanes of one application.

    Attributes:
        serving: whether this process is a worker that serves a lane.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self.serving = False
        #: The settings by which the budgets in Redis were written down last.
        self._written_by: Any = None

    def lane(self, queue: str) -> Lane | None:
        """Return the lane of a queue with its settings, None for any other queue.

        Raises:
            InvalidSettings: if the lanes' settings are wrong; other queues have nothing to do with them.
        """
        if queue not in LANE_NAMES:
            return None
        from celery_app.settings import settings_of  # pydantic is not wanted before the first job

        return settings_of(self._app).lane(queue)

    def write_terms(self, client: Any, prefix: str, models: Iterable[tuple[str, str]]) -> None:
        """Write down which budget each model of a lane draws on, for the scheduler.

        Args:
            client: without a key prefix of its own.
            prefix: of all keys.
            models: names of lanes, each with that of a model as jobs name it.
        """
        from celery_app.budget.terms import write_terms
        from celery_app.settings import settings_of  # pydantic is not wanted before the first job

        write_terms(client, prefix, settings_of(self._app), models)

    def keep_terms(self, client: Any, prefix: str) -> None:
        """Write down anew what is written down, if the settings are others than they were."""
        from celery_app.budget.quota import write_caps
        from celery_app.budget.terms import rewrite_terms, write_weights
        from celery_app.settings import settings_of

        settings = settings_of(self._app)
        if settings is not self._written_by:
            rewrite_terms(client, prefix, settings)
            write_weights(client, prefix, settings)
            write_caps(client, prefix, settings)
            self._written_by = settings

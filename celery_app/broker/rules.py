"""What a channel has to know of the lanes, looked up when it is needed: settings may change after a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_app.lanes import LANES

if TYPE_CHECKING:
    from celery_app.lanes import Lane

#: The lanes' queues; which there are is no setting.
LANE_NAMES = tuple(lane.name for lane in LANES)


class LaneRules:
    """The lanes of one application.

    Attributes:
        serving: whether this process is a worker that serves a lane.
    """

    def __init__(self, app: Any) -> None:
        """Look nothing up yet."""
        self._app = app
        self.serving = False

    def lane(self, queue: str) -> Lane | None:
        """Return the lane of a queue with its settings, None for any other queue.

        Raises:
            InvalidSettings: if the lanes' settings are wrong; other queues have nothing to do with them.
        """
        if queue not in LANE_NAMES:
            return None
        from celery_app.settings import settings_of  # pydantic is not wanted before the first job

        return settings_of(self._app).lane(queue)

"""``celery -A celery_app lanes …``: see the lanes, run them, try them.

The group itself is in `celery_lanes_plugin`, which Celery loads for every command.
"""

from celery_lanes_plugin import lanes

__all__ = ["lanes"]

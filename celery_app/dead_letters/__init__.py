"""Jobs that nobody works on any more: found, looked at, put back into their lanes, dropped.

``celery -A proj lanes dead`` does the same on the command line.
"""

from celery_app.dead_letters.letters import DeadLetter, Progress, find, get, payload
from celery_app.dead_letters.purging import Purged, purge
from celery_app.dead_letters.replaying import Replayed, replay

__all__ = ["DeadLetter", "Progress", "Purged", "Replayed", "find", "get", "payload", "purge", "replay"]

"""What operators change while all runs, for all workers at once."""

from celery_app.controls.changes import drain, fill_again, pause, read_controls, reset_limits, resume, set_limits
from celery_app.controls.fields import FIELDS

__all__ = ["FIELDS", "drain", "fill_again", "pause", "read_controls", "reset_limits", "resume", "set_limits"]

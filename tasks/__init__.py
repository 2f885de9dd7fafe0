"""The tasks that call the EzAI API, and the base for a project's own tasks in lanes."""

from tasks.base import LaneTask
from tasks.messages import create_message
from tasks.streaming import stream_message

__all__ = ["LaneTask", "create_message", "stream_message"]

"""For the tests of a project's own views and tasks: calls are answered in process, in milliseconds and for nothing.

With pytest there is the fixture `lanes`; anywhere else::

    with in_process() as lanes:
        lanes.answer("Paris.")
        client.post("/ask", {"question": "The capital of France?"})
        assert lanes.jobs("critical")[0].params["model"] == "claude-haiku-4-5"
"""

from celery_app.testing.job import Job
from celery_app.testing.lanes import Lanes, in_process

__all__ = ["Job", "Lanes", "in_process"]

"""What is measured by default: the scenarios, the most telling first, and who takes part in each.

A contender is left out where it has nothing of its own to show: what does not call an API is the same for all forms of
Celery, and only some of them know tenants, or can have a second process.
"""

from __future__ import annotations

#: All but `celery-rate`, whose one worker with `rate_limit` is measured where it is named.
ALL = ("lanes", "celery", "bucket", "bucket-split", "dramatiq", "taskiq", "asyncio")
PLAN = {
    "limited": ALL,
    "bursts": ALL,
    "free": ("lanes", "celery", "dramatiq", "taskiq", "asyncio"),
    "nothing": ("lanes", "celery", "dramatiq", "taskiq", "asyncio"),
    "overload": ("lanes", "celery", "bucket-split"),
    "failures": ("lanes", "celery"),
    "kills": ("lanes", "celery"),
    "prompts": ("lanes", "celery"),
    "backlog": ("lanes", "celery"),
    "tenants": ("lanes", "celery"),
    "waiters": ("lanes", "bucket"),
    "processes": ("lanes", "celery"),
}
#: Those without waits of critical that a repetition could mend, or that are long and steady: once is enough.
ONCE = {"nothing", "kills", "backlog", "processes"}
#: Where jobs are tried again after a failure: a long wait says nothing against a repetition.
WITH_FAILURES = {"failures", "kills"}

"""The budget's scripts with the libraries they use."""

from __future__ import annotations

from celery_app.broker.script import Script

_PACKAGE = "celery_app.budget"
_BUCKETS = ("clock", "state", "pace", "bucket", "model", "calls", "shut")

ADMIT = Script("admit", *_BUCKETS, "line", "share", package=_PACKAGE)
LEAVE = Script("leave", "clock", "line", package=_PACKAGE)
RENEW = Script("renew", "clock", "state", "calls", package=_PACKAGE)
SETTLE = Script("settle", *_BUCKETS, package=_PACKAGE)

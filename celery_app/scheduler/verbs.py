"""The scheduler's scripts with the libraries they use; each after those that it uses itself."""

from __future__ import annotations

from celery_app.script import Script

_RECORDS = ("clock", "jobs", "bell")
_PLACES = (*_RECORDS, "controls", "lines", "scheduled")
_BUDGETS = ("state", "pace", "bucket", "model", "calls", "shut", "budgets")
_ENDINGS = ("dead", "ended")
_HOLDING = (*_PLACES, *_ENDINGS, "own", "leases")
_RETURNING = (*_HOLDING, *_BUDGETS, "tickets", "unsent")
_CHOOSING = ("share", "workers", "heads", "waiters", "choice")


def _verb(name: str, *libraries: str) -> Script:
    return Script(name, *(f"lib/{library}" for library in libraries), package=__package__)


PUBLISH = _verb("publish", *_PLACES, "enter")
PUBLISH_MANY = _verb("publish_many", *_PLACES, "enter")
CLAIM = _verb("claim", *_HOLDING, "overdue", *_BUDGETS, *_CHOOSING, "wakes")
RESERVE = _verb("reserve", *_HOLDING, *_BUDGETS, *_CHOOSING)
SETTLE = _verb("settle", *_PLACES, "verdict", *_BUDGETS, "tickets")
REQUEUE = _verb("requeue", *_RETURNING)
ACK = _verb("ack", *_RETURNING)
BURY = _verb("bury", *_RETURNING)
EXTEND = _verb("extend", *_HOLDING, "overdue")
CANCEL = _verb("cancel", *_PLACES, *_ENDINGS)
DECIDE = _verb("decide", *_RECORDS, "verdict")
TAKE_ENDED = _verb("take_ended", *_RECORDS, *_ENDINGS)
DONE_ENDED = _verb("done_ended", *_RECORDS, *_ENDINGS)
LIST_DEAD = _verb("list_dead", *_RECORDS, "dead")
DROP_DEAD = _verb("drop_dead", *_RECORDS, *_ENDINGS)
REPLAY = _verb("replay", *_HOLDING)
EXPLAIN = _verb("explain", *_PLACES, "dead", *_BUDGETS, *_CHOOSING)
PURGE = _verb("purge", *_PLACES)
PRESENT = _verb("present", *_PLACES, *_ENDINGS, "workers", "mend")
SERVING = _verb("serving", *_RECORDS, "workers")
CENSUS = _verb("census", *_PLACES)
LEVELS = _verb("levels", *_PLACES, *_BUDGETS, *_CHOOSING)
DEMAND = _verb("demand", *_PLACES, *_BUDGETS, *_CHOOSING)
CONTROL = _verb("control", *_RECORDS, "controls")

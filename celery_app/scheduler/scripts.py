"""The scheduler's scripts with the libraries they use; each after those that it uses itself."""

from __future__ import annotations

from celery_app.script import Script

_RECORDS = ("clock", "jobs", "wakeup")
_PLACES = (*_RECORDS, "controls", "lines", "prefixes", "scheduled")
_SHIPPING = (*_PLACES, "shipments")
_QUOTAS = ("state", "pace", "bucket", "quota", "aside")
_BUDGETS = (*_QUOTAS, "model", "calls", "shut", "draws", "budgets")
_ENDINGS = ("dead", "ended")
_HOLDING = (*_SHIPPING, *_ENDINGS, "own", "leases")
_RETURNING = (*_HOLDING, *_BUDGETS, "tickets", "unsent")
_CHOOSING = ("share", "workers", "passing", "heads", "waiters", "choice")


def _script(name: str, *libraries: str) -> Script:
    return Script(name, *(f"lib/{library}" for library in libraries), package=__package__)


PUBLISH = _script("publish", *_SHIPPING, "enter")
PUBLISH_MANY = _script("publish_many", *_SHIPPING, "enter")
CLAIM = _script("claim", *_HOLDING, "overdue", *_BUDGETS, *_CHOOSING, "wakes")
RESERVE = _script("reserve", *_HOLDING, *_BUDGETS, *_CHOOSING)
SETTLE = _script("settle", *_PLACES, "verdict", *_BUDGETS, "tickets", "spent")
SPENT = _script("spent", *_PLACES, "spent")
REQUEUE = _script("requeue", *_RETURNING)
ACK = _script("ack", *_RETURNING)
DEAD_LETTER = _script("dead_letter", *_RETURNING)
EXTEND = _script("extend", *_HOLDING, "overdue")
CANCEL = _script("cancel", *_SHIPPING, *_ENDINGS)
DECIDE = _script("decide", *_RECORDS, "verdict")
TAKE_ENDED = _script("take_ended", *_RECORDS, *_ENDINGS)
DONE_ENDED = _script("done_ended", *_RECORDS, *_ENDINGS)
LIST_DEAD = _script("list_dead", *_RECORDS, "dead")
DROP_DEAD = _script("drop_dead", *_RECORDS, *_ENDINGS)
REPLAY = _script("replay", *_HOLDING)
EXPLAIN = _script("explain", *_PLACES, "dead", *_BUDGETS, *_CHOOSING, "turns", "usual", "forecast")
PURGE = _script("purge", *_SHIPPING)
PRESENT = _script("present", *_SHIPPING, *_ENDINGS, *_QUOTAS, "workers", "mend")
SERVING = _script("serving", *_RECORDS, "workers")
STATS = _script("stats", *_PLACES)
LEVELS = _script("levels", *_PLACES, *_BUDGETS, *_CHOOSING)
TENANTS = _script("tenants", *_PLACES)
DEMAND = _script("demand", *_PLACES, *_BUDGETS, *_CHOOSING)
CONTROL = _script("control", *_PLACES, *_QUOTAS)
CAPS = _script("caps", *_PLACES, *_QUOTAS)
CHARGE = _script("charge", *_PLACES, *_QUOTAS, "fares", "spent")
STEER = _script("steer", *_SHIPPING)
SHIP = _script("ship", *_SHIPPING, *_ENDINGS, *_QUOTAS, "fares")
LAND = _script("land", *_SHIPPING, *_ENDINGS, *_QUOTAS, "fares")

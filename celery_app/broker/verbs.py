"""The broker's scripts with the libraries they use."""

from __future__ import annotations

from celery_app.broker.script import Script

_SWEEPING = ("message", "front", "bell", "dead", "hold", "scheduled", "sweep_up")

CLAIM = Script("claim", *_SWEEPING, "gates")
CLOSE_GATE = Script("close_gate", "message")
EXTEND = Script("extend", *_SWEEPING)
GIVE_BACK = Script("give_back", "message", "front", "bell", "dead", "hold", "scheduled")
GIVE_UP = Script("give_up", "message", "dead", "hold")
PURGE = Script("purge", "message", "front", "gates", "scheduled")
PUT = Script("put", "message", "bell", "scheduled", "depth")
SETTLE = Script("settle", "message", "hold")
TELL = Script("tell", "message")

"""The model that examples and the demo name."""

from __future__ import annotations

#: Small and quick, as a person who only tries the lanes wants it.
MODEL = "claude-haiku-4-5"

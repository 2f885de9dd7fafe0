"""Money as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def dollars(usd: float) -> str:
    """Return an amount: cents, and of less than a dollar the parts of one that matter."""
    return f"${usd:,.2f}" if usd >= 1 or not usd else f"${usd:.4f}"


def spent_words(lane: Mapping[str, Any]) -> str:
    """Return what a lane has spent: ``spent $1.20 today, $0.60 saved``."""
    return spent_and_saved(lane["usd_today"], lane["usd_saved_today"])


def spent_and_saved(usd: float, saved: float) -> str:
    """Return the same of amounts."""
    return f"spent {dollars(usd)} today{f', {dollars(saved)} saved' if saved else ''}"

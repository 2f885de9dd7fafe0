"""Durations as people write and read them."""

from __future__ import annotations

import re

import click

_S_PER_MIN, _S_PER_H, _MS_PER_S = 60, 3_600, 1_000

#: Unit -> seconds.
_UNITS = {"s": 1, "m": _S_PER_MIN, "h": _S_PER_H, "d": 24 * _S_PER_H}

_WRITTEN = re.compile(rf"(\d{{1,9}}(?:\.\d+)?)([{''.join(_UNITS)}])")


def seconds(_ctx: click.Context, _param: click.Parameter, written: str | None) -> float | None:
    """Return the seconds of an option's duration: ``90s``, ``10m``, ``2h``, ``7d``.

    Raises:
        click.BadParameter: it is none.
    """
    if written is None:
        return None
    match = _WRITTEN.fullmatch(written.strip())
    if match is None:
        raise click.BadParameter(f"{written!r} is no duration: write 90s, 10m, 2h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def shown(seconds: float | None) -> str:
    """Return a duration in the unit that suits its size: ``4.9 ms``, ``12.3 s``, ``5.0 min``, ``2.1 h``."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * _MS_PER_S:.1f} ms"
    if seconds < _S_PER_MIN:
        return f"{seconds:.1f} s"
    if seconds < _S_PER_H:
        return f"{seconds / _S_PER_MIN:.1f} min"
    return f"{seconds / _S_PER_H:,.1f} h"


def shown_ms(milliseconds: float | None) -> str:
    """Return the same of milliseconds."""
    return shown(None if milliseconds is None else milliseconds / _MS_PER_S)

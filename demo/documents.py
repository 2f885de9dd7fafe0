"""Documents: real text, at hand anywhere, of which the demo's batch is made."""

from __future__ import annotations

from importlib.metadata import distributions
from itertools import chain, islice, zip_longest
from typing import Any

#: Characters of a piece of a README: long enough to say what the package is about, short enough to make 200 of the
#: packages that any installation of the lanes has. A piece below the second number says nothing.
PIECE, SHORTEST_PIECE = 1_200, 100


def package_documents(count: int) -> list[str]:
    """Return at most `count` pieces of the READMEs of the Python packages installed here.

    The first piece of every package comes before the second of any.
    """
    readmes = {package.name.lower(): _readme(package.metadata) for package in distributions()}
    pieces = [_pieces(readmes[name]) for name in sorted(readmes)]
    return list(islice(filter(None, chain.from_iterable(zip_longest(*pieces))), count))


def _readme(metadata: Any) -> str:
    return str(metadata.get("Description") or metadata.get_payload() or "")


def _pieces(text: str) -> list[str]:
    pieces = (text[start : start + PIECE].strip() for start in range(0, len(text), PIECE))
    return [piece for piece in pieces if len(piece) >= SHORTEST_PIECE]

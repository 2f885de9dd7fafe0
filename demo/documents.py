"""Documents: the texts that the demo's batch is made of."""

from __future__ import annotations

import itertools
import json
from importlib.metadata import distributions
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING, Any, BinaryIO

from demo.errors import DocumentsUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Characters of a document that are sent, about 1,000 tokens: a class shows in the first of them.
LONGEST = 4_000
#: Bytes that a line of a file may have: a file without line ends, such as /dev/zero, is no text.
MOST_BYTES = 4 * 1024 * 1024
#: Characters of a piece of a README: long enough to say what the package is about, short enough to make 200 of the
#: packages that any installation of the lanes has.
PIECE = 1_200
#: Characters below which a piece says nothing.
SHORTEST_PIECE = 100

#: Fields of a JSON line that may hold the text.
TEXT_FIELDS = ("text", "content")
JSONL_SUFFIXES = frozenset({".jsonl", ".ndjson"})


def documents_in(path: Path, count: int) -> list[str]:
    """Return the first `count` documents of a file: one per line, as text or as a JSON object.

    Args:
        path: a file of JSON objects with a field ``text`` or ``content`` if it is named ``….jsonl``, else of text.
        count: at most so many; what comes after them is not read.

    Raises:
        DocumentsUnreadable: naming the file, and the line where one is to blame.
    """
    try:
        with path.open("rb") as file:
            found = list(islice(_texts(path, _lines(path, file)), count))
    except OSError as error:
        raise DocumentsUnreadable(place=path, problem=(error.strerror or str(error)).lower()) from None
    if not found:
        raise DocumentsUnreadable(place=path, problem="there is no document in it")
    return found


def package_documents(count: int) -> list[str]:
    """Return at most `count` pieces of the READMEs of the Python packages installed here: real text, at hand anywhere.

    The first piece of every package comes before the second of any.
    """
    readmes = {_name(package): _readme(package) for package in distributions()}
    pieces = [_pieces(readmes[name]) for name in sorted(readmes)]
    return list(islice(filter(None, chain.from_iterable(zip_longest(*pieces))), count))


def _lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    for number in itertools.count(1):
        line = file.readline(MOST_BYTES + 1)
        if not line:
            return
        if len(line) > MOST_BYTES:
            problem = f"this line has more than {MOST_BYTES:,} bytes; one line is one document"
            raise DocumentsUnreadable(place=f"{path}, line {number}", problem=problem)
        yield line


def _texts(path: Path, lines: Iterator[bytes]) -> Iterator[str]:
    for number, raw in enumerate(lines, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if line:
                yield (_field(line) if path.suffix.lower() in JSONL_SUFFIXES else line)[:LONGEST]
        except UnicodeDecodeError:
            raise DocumentsUnreadable(place=f"{path}, line {number}", problem="this is not UTF-8 text") from None
        except ValueError as error:
            raise DocumentsUnreadable(place=f"{path}, line {number}", problem=error) from None


def _field(line: str) -> str:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON ({error.msg.lower()})") from None
    except RecursionError:
        raise ValueError("this is JSON that is nested too deeply") from None
    texts = [record.get(field) for field in TEXT_FIELDS] if isinstance(record, dict) else []
    text = next((text for text in texts if isinstance(text, str) and text.strip()), None)
    if text is None:
        raise ValueError(f"there is no text in a field {' or '.join(TEXT_FIELDS)}")
    return text.strip()


def _name(package: Any) -> str:
    return str(package.metadata["Name"]).lower()


def _readme(package: Any) -> str:
    return str(package.metadata.get("Description") or package.metadata.get_payload() or "")


def _pieces(text: str) -> list[str]:
    """Cut a text between its lines."""
    pieces = [""]
    for line in text.splitlines():
        if len(pieces[-1]) + len(line) > PIECE:
            pieces.append("")
        pieces[-1] += f"{line[:PIECE]}\n"
    return [piece.strip() for piece in pieces if len(piece.strip()) >= SHORTEST_PIECE]

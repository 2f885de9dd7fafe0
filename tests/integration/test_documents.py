from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from demo.documents import LONGEST, documents_in, package_documents
from demo.errors import DocumentsUnreadable

if TYPE_CHECKING:
    from pathlib import Path


def test_each_line_of_a_text_is_a_document(tmp_path: Path) -> None:
    """Lines are documents, empty ones are not, and a byte order mark is no text."""
    path = tmp_path / "documents.txt"
    path.write_bytes("\ufefffirst\r\n\n  second ünï  \n{third}".encode())
    assert documents_in(path, 10) == ["first", "second ünï", "{third}"]


def test_each_line_of_a_jsonl_file_is_an_object_with_text(tmp_path: Path) -> None:
    """The text is in the field text or content."""
    path = tmp_path / "documents.jsonl"
    records = [{"text": "first"}, {"id": 2, "content": "second\nline"}, {"text": "", "content": "third"}]
    path.write_text("\n".join(map(json.dumps, records)))
    assert documents_in(path, 10) == ["first", "second\nline", "third"]


def test_no_more_is_read_than_is_wanted(tmp_path: Path) -> None:
    """A large file costs only its beginning, and a bad line behind it does no harm."""
    path = tmp_path / "documents.txt"
    path.write_bytes(b"first\nsecond\n\xff\xfe\n")
    assert documents_in(path, 2) == ["first", "second"]


def test_a_long_document_is_cut(tmp_path: Path) -> None:
    """A document of a megabyte is sent as its first 4,000 characters."""
    path = tmp_path / "documents.txt"
    path.write_text("x" * 1_000_000)
    assert documents_in(path, 1) == ["x" * LONGEST]


@pytest.mark.parametrize(
    ("name", "content", "line", "problem"),
    [
        ("a.txt", b"good\n\xff\xfe\x00bad\n", 2, "not UTF-8"),
        ("a.jsonl", b'{"text": "good"}\nbad\n', 2, "not JSON"),
        ("a.jsonl", b'{"text": "good"}\n\n{"txt": "typo"}\n', 3, "text or content"),
        ("a.jsonl", b'{"text": 5}\n', 1, "text or content"),
        ("a.jsonl", b'["text"]\n', 1, "text or content"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, content: bytes, line: int, problem: str) -> None:
    """What cannot be read is told with file, line number and reason, in one line."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DocumentsUnreadable) as caught:
        documents_in(path, 10)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "directory", "empty", "blank", "forbidden"])
def test_a_file_without_documents_is_named(tmp_path: Path, kind: str) -> None:
    """A file that is missing, empty, forbidden or no file is told by name, in one line."""
    path = tmp_path / "documents.txt"
    if kind == "directory":
        path.mkdir()
    elif kind != "missing":
        path.write_text("\n \n" if kind == "blank" else "")
    if kind == "forbidden":
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("root may read everything")
    with pytest.raises(DocumentsUnreadable) as caught:
        documents_in(path, 10)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_the_packages_installed_here_give_two_hundred_documents() -> None:
    """The demo has 200 different texts of sane length without any file."""
    documents = package_documents(200)
    assert len(set(documents)) == 200
    assert all(50 < len(document) <= LONGEST for document in documents)
    assert documents == package_documents(200)

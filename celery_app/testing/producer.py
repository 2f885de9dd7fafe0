"""What Celery publishes through, where there is no broker to connect to."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class NoProducer:
    """Takes the place of a connection to a broker."""

    @property
    def connection(self) -> NoProducer:
        """The connection, as Celery asks for it."""
        return self

    @contextmanager
    def _reraise_as_library_errors(self) -> Iterator[None]:
        yield

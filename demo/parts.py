"""Part: one of the things that a stack starts and waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from demo.child import Child
    from demo.group import ProcessGroup


class Part(Protocol):
    """A child process and how to tell that it is ready."""

    @property
    def title(self) -> str:
        """What a person calls it."""

    @property
    def ready_seconds(self) -> float:
        """Seconds from its start after which it must be ready."""

    def start(self, group: ProcessGroup, environ: Mapping[str, str]) -> Child:
        """Start it in a group, with its whole environment."""

    def is_ready(self) -> bool:
        """Whether it can do its work by now."""

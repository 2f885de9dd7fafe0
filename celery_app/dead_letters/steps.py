"""What Celery does once a job has ended: the steps that are chained behind it, and the chord that it is a part of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from kombu.utils.json import dumps

from celery_app.broker.body import Body, read_body, with_body

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps behind one job.

    Attributes:
        message: of the job, as kombu has it.
        body: of the message; None where nobody can read it.
    """

    message: Mapping[str, Any]
    body: Body | None

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Read them in a job's message."""
        try:
            message = json.loads(text)
            return cls(message, read_body(message))
        except (ValueError, TypeError):
            return cls({}, None)

    @property
    def _chain(self) -> list[Mapping[str, Any]]:
        chain = self.body.embed.get("chain") if self.body is not None else None
        return [step for step in chain or () if isinstance(step, dict)]

    @property
    def chained(self) -> list[str]:
        """The ids of what is chained behind the job."""
        ids = [(step.get("options") or {}).get("task_id") for step in self._chain]
        return [task_id for task_id in ids if isinstance(task_id, str)]

    @property
    def has_chord(self) -> bool:
        """Whether the job, or the end of its chain, is a part of a chord."""
        ends = [step.get("options") or {} for step in self._chain]
        return self.body is not None and any(each.get("chord") for each in (self.body.embed, *ends))

    def without_chord(self) -> bytes:
        """Return the message of the job as one that is part of no chord.

        A chord counts its parts. It has counted this one as failed, and would take a second end for another part's.
        """
        if self.body is None:
            raise ValueError("nobody can read the message")
        chain = [{**step, "options": _but_chord(step.get("options") or {})} for step in self._chain]
        embed = {**self.body.embed, "chord": None, "chain": chain or None}
        text: str = dumps(with_body(self.message, self.body._replace(embed=embed)))
        return text.encode()


def _but_chord(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "chord"}

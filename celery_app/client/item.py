"""One item of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_app.configuration.variables import NANODOLLARS
from celery_app.errors import InvalidItem, InvalidRequest
from celery_app.jobs.identity import identity
from celery_app.jobs.options import refuse_options
from celery_app.routing import CAP

if TYPE_CHECKING:
    from collections.abc import Callable


class Names(NamedTuple):
    """Whose jobs a batch has, what they may cost, and which are the only ones of their names; as in `Client`."""

    tenant: str | None = None
    unique: Callable[[Any], str] | None = None
    unique_for: float | None = None
    usd: float | None = None

    @property
    def cap(self) -> dict[str, int]:
        """What the batch may cost, as a header and in nanodollars; nothing, where nobody has said."""
        return {} if self.usd is None else {CAP: max(1, round(self.usd * NANODOLLARS))}

    def headers(self, item: Any) -> dict[str, Any]:
        """Return the headers of one job."""
        unique = None if self.unique is None else self.unique(item)
        return identity(self.tenant, unique, self.unique_for if unique else None) | self.cap


def check_item(index: int, item: Any) -> None:
    """Check one item.

    Raises:
        InvalidItem: naming its index and the first bad field.
    """
    from tasks.request import check_request

    if not isinstance(item, Mapping):
        problem = f"have to be an object, not {type(item).__name__}"
        raise InvalidItem(index=index, path="params", problem=problem)
    try:
        refuse_options(item, "submit_many")
        check_request(item)
    except InvalidRequest as exc:
        raise InvalidItem(index=index, path=exc.path, problem=exc.problem) from None

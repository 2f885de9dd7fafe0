"""The part of a client that is about batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery_app.client.batch import Batch
    from celery_app.client.dry_run import DryRun
    from celery_app.client.submission import OnInvalid


class Options(TypedDict, total=False):
    """What else `Batches.submit_many` takes, whatever it returns."""

    on_invalid: OnInvalid
    progress: Callable[[Batch], None] | None
    wait: float | None
    tenant: str | None
    unique: Callable[[Any], str] | None
    unique_for: float | None
    usd: float | None


class Batches:
    """Many calls at once."""

    @property
    def app(self) -> Any:
        """The Celery application, configured."""
        raise NotImplementedError

    @overload
    def submit_many(
        self, items: Iterable[Any], lane: str = "batch", *, dry_run: Literal[True], **options: Unpack[Options]
    ) -> DryRun: ...

    @overload
    def submit_many(
        self, items: Iterable[Any], lane: str = "batch", *, dry_run: Literal[False] = False, **options: Unpack[Options]
    ) -> Batch: ...

    def submit_many(
        self,
        items: Iterable[Any],
        lane: str = "batch",
        *,
        on_invalid: OnInvalid = "stop",
        progress: Callable[[Batch], None] | None = None,
        wait: float | None = None,
        tenant: str | None = None,
        unique: Callable[[Any], str] | None = None,
        unique_for: float | None = None,
        usd: float | None = None,
        dry_run: bool = False,
    ) -> Batch | DryRun:
        """Submit many calls, and return once all are queued.

        A full lane is waited for as long as it moves: `wait` counts from the last job that found room. By default that
        is the lane's ``submit_wait``, 2 s, as suits a web request; a script that fills a lane faster than its workers
        empty it says ``wait=600``, and may look on by `progress`.

        Nothing is queued if a list holds a bad item and `on_invalid` is ``stop``. Of any other iterable, the items
        before the bad one may be queued by then: the error's ``batch_id`` leads to them.

        Args:
            items: the parameters of each call, as dicts.
            lane: for all of them.
            on_invalid: ``stop`` raises at the first bad item, ``skip`` leaves it out and notes it in the batch.
            progress: called with the batch about twice a second, while it waits, too, and at the end.
            wait: seconds without room after which to give up; ``float("inf")``: never; None: the ``submit_wait``.
            tenant: whose jobs they are.
            unique: returns the name of an item; one whose job is queued or runs is left out, see ``Batch.found``.
            unique_for: as in `submit`.
            usd: dollars that its calls may cost; what would cost more waits for ``lanes limits set --batch ID usd=…``.
            dry_run: whether to say what it will cost, live and in message batches, and to queue nothing.

        Raises:
            InvalidItem: naming the item's index and the first bad field.
            LaneFull: there was no room for `wait`; the error's ``batch_id`` leads to the jobs that are queued.
        """
        from celery_app.client.item import Names
        from celery_app.client.sending import lane_of
        from celery_app.client.submission import submit_many

        if dry_run:
            from celery_app.client.dry_run import dry_run as estimate

            return estimate(self.app, items, lane_of(self.app, lane), on_invalid)
        names = Names(tenant, unique, unique_for, usd)
        return submit_many(self.app, items, lane_of(self.app, lane), on_invalid, progress, wait, names)

    def load_batch(self, batch_id: str) -> Batch:
        """Return a batch that any process has submitted.

        Raises:
            UnknownBatch: there is none of that id.
        """
        from celery_app.client.batch import Batch

        return Batch.load(batch_id, self.app)

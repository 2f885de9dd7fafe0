"""A result backend in this process's memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import TimeoutError as NotInTime
from celery.states import READY_STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Store:
    """What the backends of all applications share."""

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self.lock = threading.Lock()


class Results(KeyValueStoreBackend):
    """Celery's own backend over a dict; chords, groups and chains work as over Redis.

    Nobody waits: what has not ended is held by the test that waits for it.
    """

    thread_safe = True
    supports_native_join = True
    implements_incr = True

    def __init__(self, app: Any, store: Store) -> None:
        self._store = store
        super().__init__(app=app, serializer="json", accept=["json"], url="in-process://")

    def get(self, key: Any) -> Any:
        """Return what is kept under a key, or None."""
        return self._store.values.get(key)

    def mget(self, keys: Iterable[Any]) -> list[Any]:
        """Return what is kept under several."""
        return [self.get(key) for key in keys]

    def set(self, key: Any, value: Any) -> None:
        """Keep a value."""
        self._store.values[key] = value

    def delete(self, key: Any) -> None:
        """Forget a value."""
        self._store.values.pop(key, None)

    def incr(self, key: Any) -> int:
        """Count."""
        with self._store.lock:
            count: int = self._store.values.get(key, 0) + 1
            self._store.values[key] = count
        return count

    def expire(self, key: Any, value: Any) -> None:
        """Keep it: a test is over soon."""

    def wait_for(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        """Return what became of a job.

        Raises:
            celery.exceptions.TimeoutError: it is held.
        """
        self._refuse_held([task_id])
        return super().wait_for(task_id, *args, **kwargs)

    def get_many(self, task_ids: Iterable[str], *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Do the same for several."""
        task_ids = list(task_ids)
        self._refuse_held(task_ids)
        yield from super().get_many(task_ids, *args, **kwargs)

    def _ensure_not_eager(self) -> None:
        """Keep Celery from warning: these results are kept in its eager mode, too."""

    def _refuse_held(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            if self.get_state(task_id) not in READY_STATES:
                raise NotInTime(f"job {task_id} has not run: it is held until lanes.drain(), or was never submitted")

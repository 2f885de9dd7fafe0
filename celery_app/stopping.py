"""Whether this process is a Celery worker that was told to stop."""

from __future__ import annotations

import sys


def warm_shutdown() -> bool:
    """Say whether it is to stop once its jobs are done; a pool's process is not told."""
    return _told("should_stop")


def cold_shutdown() -> bool:
    """Say whether it is to stop now."""
    return _told("should_terminate")


def _told(name: str) -> bool:
    code = getattr(sys.modules.get("celery.worker.state"), name, None)
    # Celery's "told to" is any exit code, 0 included.
    return code is not None and code is not False

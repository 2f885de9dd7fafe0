"""A project one of whose calls kills its process; ``celery -A killers`` runs its workers."""

import os
import signal
from typing import Any

from celery.signals import task_prerun

from celery_app import create_app

app = create_app()

#: The user in whose name a call kills.
KILLER = "killer"


@task_prerun.connect
def _kill(kwargs: dict[str, Any], **_: Any) -> None:
    if (kwargs.get("metadata") or {}).get("user_id") == KILLER:
        os.kill(os.getpid(), signal.SIGKILL)

"""The site's task class."""

from __future__ import annotations

from typing import Any

from celery.contrib.django.task import DjangoTask


class AuditedTask(DjangoTask):  # type: ignore[misc]
    """Writes down who was called, and keeps Django's ``delay_on_commit``."""

    tenant = "public"

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Write an entry in the site's own table."""
        from orders.models import Audit

        Audit.objects.create(task=self.name, job=task_id)

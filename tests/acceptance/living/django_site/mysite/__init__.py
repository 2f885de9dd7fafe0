"""A Django site, with Celery as the documentation has it."""

from __future__ import annotations

from mysite.celery import app as celery_app

__all__ = ("celery_app",)

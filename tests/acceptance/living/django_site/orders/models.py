"""The site's tables."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """What somebody ordered."""

    item = models.CharField(max_length=50)
    mailed = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.item


class Audit(models.Model):
    """Which task was called."""

    task = models.CharField(max_length=100)
    job = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.task

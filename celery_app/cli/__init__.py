"""``celery -A celery_app lanes …``: see the lanes, run them, try them."""

from celery_app.cli.group import lanes

__all__ = ["lanes"]

"""The project with lanes, whose leases last two seconds: for tests that cannot wait for fifteen."""

from celery_app.broker import lease
from kit.project import app

lease.LEASE, lease.EXTEND_EVERY = 2.0, 0.4
lease.GRACE = 2 * lease.EXTEND_EVERY

__all__ = ["app"]

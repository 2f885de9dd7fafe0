"""What the site relies on; passes on stock Celery, and unchanged with the lanes installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord
from celery.exceptions import TimeLimitExceeded
from processes_of_celery import JOB_DEADLINE, Process, command, process, stats, until
from redis import Redis

HERE = Path(__file__).parent


def test_a_receipt_is_mailed_once_the_order_is_there(site: Any, emails: Process) -> None:
    """`delay_on_commit` sends after the transaction, and not at all when that is rolled back."""
    from django.db import transaction
    from django.test import Client
    from orders.models import Order
    from orders.tasks import mail_receipt

    made = Client().post("/order/", {"item": "tea"}).json()["order"]
    until(lambda: Order.objects.get(pk=made).mailed, "the receipt")
    kept = Order.objects.create(item="cup")
    with transaction.atomic():
        mail_receipt.delay_on_commit(kept.pk)
        transaction.set_rollback(True)
    with transaction.atomic():
        mail_receipt.apply_async_on_commit((made,))
        assert Order.objects.get(pk=made).mailed == 1
    until(lambda: Order.objects.get(pk=made).mailed == 2, "the second receipt")
    assert Order.objects.get(pk=kept.pk).mailed == 0


def test_results_are_in_the_sites_database(site: Any, emails: Process) -> None:
    """`django-db` keeps what a task wants kept, extended; Redis keeps none, and ignored stays ignored."""
    from django_celery_results.models import TaskResult
    from orders.models import Order
    from orders.tasks import mail_broken, mail_count, mail_receipt

    sent = mail_count.delay()
    assert isinstance(sent.get(JOB_DEADLINE), int)
    row = TaskResult.objects.get(task_id=sent.id)
    assert (row.status, row.task_name, row.worker) == ("SUCCESS", "orders.tasks.mail_count", "emails@site")
    failed = mail_broken.delay()
    with pytest.raises(ValueError, match="broken"):
        failed.get(JOB_DEADLINE)
    order = Order.objects.create(item="pot")
    ignored = mail_receipt.delay(order.pk)
    until(lambda: Order.objects.get(pk=order.pk).mailed, "the receipt")
    mail_count.delay().get(JOB_DEADLINE)
    assert not TaskResult.objects.filter(task_id=ignored.id, status="SUCCESS").exists()
    with Redis.from_url(os.environ["SITE_BROKER"], decode_responses=True) as redis:
        assert not redis.keys("*celery-task-meta-*")


def test_a_worker_is_what_its_command_line_says(site: Any, emails: Process) -> None:
    """`-Q emails -P prefork --autoscale=2,1 --time-limit=20`."""
    told = stats(site, "emails@site")
    assert "prefork" in told["pool"]["implementation"]
    assert list(told["pool"]["timeouts"]) == [2.0, 20.0]
    assert (told["autoscaler"]["max"], told["autoscaler"]["min"]) == (2, 1)
    queues = until(lambda: site.control.inspect(["emails@site"], timeout=2).active_queues(), "queues")
    assert [queue["name"] for queue in queues["emails@site"]] == ["emails"]


def test_a_worker_without_a_queue_serves_the_default_one(site: Any, web: Process) -> None:
    """`CELERY_TASK_DEFAULT_QUEUE`; prefork, a process a core, Celery's own prefetch, the settings' limits."""
    from orders.tasks import where

    assert where.delay().get(JOB_DEADLINE) == "web"
    told, cores = stats(site, "web@site"), os.cpu_count() or 1
    assert "prefork" in told["pool"]["implementation"]
    assert (told["pool"]["max-concurrency"], told["prefetch_count"]) == (cores, cores * 4)
    assert list(told["pool"]["timeouts"]) == [2.0, 3.0]
    queues = until(lambda: site.control.inspect(["web@site"], timeout=2).active_queues(), "queues")
    assert [queue["name"] for queue in queues["web@site"]] == ["web"]


def test_the_settings_are_the_sites(site: Any, web: Process) -> None:
    """Each `CELERY_…` setting is what Celery and the worker use."""
    from django.conf import settings

    told = until(lambda: site.control.inspect(["web@site"], timeout=2).conf(), "conf")["web@site"]
    for key in ("task_ignore_result", "task_acks_late", "task_time_limit", "task_routes", "result_backend", "timezone"):
        wanted = getattr(settings, f"CELERY_{key.upper()}")
        assert getattr(site.conf, key) == wanted
        assert told.get(key, wanted) == json.loads(json.dumps(wanted))


def test_every_call_is_audited(site: Any, emails: Process) -> None:
    """The site's task class is that of each of its tasks."""
    from mysite.audit import AuditedTask
    from orders.models import Audit
    from orders.tasks import mail_count

    assert isinstance(site.tasks["orders.tasks.add"], AuditedTask)
    assert mail_count.tenant == "public"
    sent = mail_count.delay()
    sent.get(JOB_DEADLINE)
    assert Audit.objects.get(job=sent.id).task == "orders.tasks.mail_count"


def test_time_limits_of_settings_and_tasks(site: Any, emails: Process) -> None:
    """`CELERY_TASK_SOFT_TIME_LIMIT` is for all, a task's own limit for itself."""
    from orders.tasks import mail_for_ever, mail_slowly

    soft, hard = mail_slowly.delay(), mail_for_ever.delay()
    assert soft.get(JOB_DEADLINE) == "cleaned up"
    with pytest.raises(TimeLimitExceeded):
        hard.get(JOB_DEADLINE)


def test_canvas_over_the_database(site: Any, web: Process) -> None:
    """Chains and chords, with their parts counted in the site's tables."""
    from orders.tasks import add, total

    assert chain(add.s(1, 2), add.s(3))().get(JOB_DEADLINE) == 6
    assert chord([add.s(1, 1), add.s(2, 2)], total.s())().get(JOB_DEADLINE) == 6


def test_commands(site: Any, emails: Process) -> None:
    """`manage.py check`, `celery report`, `inspect`: none needs anything else."""
    assert "emails@site: OK" in command("mysite", "inspect", "ping", "-d", "emails@site", cwd=HERE)
    assert "django-db" in command("mysite", "report", cwd=HERE)
    check = [sys.executable, "manage.py", "check"]
    done = subprocess.run(check, cwd=HERE, env=os.environ, capture_output=True, text=True, check=False)
    assert "no issues" in done.stdout, done.stderr


def test_the_database_schedules(site: Any, web: Process, folder: Path) -> None:
    """`django_celery_beat` sends what its tables say."""
    from django_celery_beat.models import IntervalSchedule, PeriodicTask
    from django_celery_results.models import TaskResult

    second, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.SECONDS)
    row = PeriodicTask.objects.create(interval=second, name="adding", task="orders.tasks.add", args="[40, 2]")
    arguments = ("beat", "-l", "INFO", "--pidfile=")
    with process("mysite", *arguments, log=folder / "beat.log", cwd=HERE, ready="Sending due task adding"):
        sent = TaskResult.objects.filter(task_name="orders.tasks.add", result="42", status="SUCCESS")
        until(sent.exists, "a scheduled job")
    row.delete()


def test_eager_tests_need_no_broker(site: Any) -> None:
    """The site's own unit tests: eager, `memory://`."""
    asked = (
        "import django; django.setup()\n"
        "from mysite.celery import app; app.conf.update(task_always_eager=True, task_eager_propagates=True)\n"
        "from orders.tasks import add, mail_receipt\n"
        "assert add.delay(1, 2).get() == 3\n"
        "assert mail_receipt.apply_async((1,), queue='emails').get() == 'mailed'\n"
        "from django.db import transaction\n"
        "with transaction.atomic(): mail_receipt.delay_on_commit(1)\n"
    )
    env = {**os.environ, "SITE_BROKER": "memory://"}
    subprocess.run([sys.executable, "-c", asked], cwd=HERE, env=env, check=True, timeout=JOB_DEADLINE)

"""What the shop relies on; passes on stock Celery, and unchanged with the lanes installed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import chain, chord, group
from celery.exceptions import MaxRetriesExceededError, TimeLimitExceeded
from kombu import Queue
from kombu.simple import SimpleBuffer
from processes_of_celery import JOB_DEADLINE, command, process, stats, until

if TYPE_CHECKING:
    from redis import Redis

HERE = Path(__file__).parent


def test_a_worker_of_own_queues_is_a_stock_worker(served_shop: Any) -> None:
    """Pool, concurrency, prefetch and limits of a worker without flags are Celery's and the shop's."""
    cores = os.cpu_count() or 1
    told = stats(served_shop, "main@shop")
    assert told["pool"]["implementation"] == "celery.concurrency.prefork:TaskPool"
    assert told["pool"]["max-concurrency"] == cores
    assert told["prefetch_count"] == cores * 4
    assert list(told["pool"]["timeouts"]) == [0, 0]


def test_the_configuration_is_the_shops(served_shop: Any) -> None:
    """What a running worker says of its configuration is what the shop's settings say."""
    from shop import settings

    conf = until(lambda: served_shop.control.inspect(["main@shop"], timeout=2).conf(), "conf")["main@shop"]
    for key in ("accept_content", "task_serializer", "result_serializer", "worker_prefetch_multiplier"):
        assert conf[key] == getattr(settings, key)
    assert conf["broker_transport_options"] == settings.broker_transport_options
    defaults = {
        "task_acks_late": False,
        "task_create_missing_queues": True,
        "task_reject_on_worker_lost": None,
        "task_send_sent_event": False,
        "worker_send_task_events": False,
    }
    assert {key: served_shop.conf[key] for key in defaults} == defaults


def test_a_worker_consumes_what_it_was_told(served_shop: Any) -> None:
    """`-Q` is the whole of it."""
    queues = until(lambda: served_shop.control.inspect(["main@shop"], timeout=2).active_queues(), "queues")
    assert {q["name"] for q in queues["main@shop"]} == {"celery", "emails", "reports", "media", "region-eu"}


def test_pickle_carries_objects(served_shop: Any) -> None:
    """Arguments, results and exceptions are the shop's own objects."""
    from shop.tasks import Declined, Order, decline, pack

    assert pack.delay(Order(1, frozenset({"tea"}))).get(JOB_DEADLINE) == Order(2, frozenset({"tea", "receipt"}))
    with pytest.raises(Declined) as caught:
        decline.delay(51).get(JOB_DEADLINE)
    assert caught.value.code == 51


def test_every_kind_of_route_leads_where_it_did(served_shop: Any) -> None:
    """By name, by glob, by regular expression, by function; and the default queue."""
    from shop.tasks import mail, ship, thumbnail, yearly

    sent = [mail.delay(), yearly.delay(), thumbnail.delay(), ship.delay(region="eu"), ship.delay()]
    assert [s.get(JOB_DEADLINE) for s in sent] == ["emails", "reports", "media", "region-eu", "celery"]


def test_a_queue_by_name_wins_over_the_route(served_shop: Any) -> None:
    """`queue=` at the call is the last word."""
    from shop.tasks import mail

    assert mail.apply_async(queue="reports").get(JOB_DEADLINE) == "reports"


def test_a_queue_that_nobody_declared_is_made(shop: Any, redis: Redis) -> None:
    """Celery makes a missing queue; the message waits in its list."""
    from shop.tasks import add

    add.apply_async((1, 2), queue="adhoc")
    assert redis.llen("adhoc") == 1
    assert "1" in command("shop", "purge", "-f", "-Q", "adhoc", cwd=HERE)
    assert redis.llen("adhoc") == 0


def test_canvas(served_shop: Any) -> None:
    """Chains, groups, chords, chunks and links."""
    from shop.tasks import add, remember, total

    assert chain(add.s(1, 2), add.s(3), add.s(4))().get(JOB_DEADLINE) == 10
    assert group(add.s(n, n) for n in range(4))().get(JOB_DEADLINE) == [0, 2, 4, 6]
    assert chord((add.s(n, 1) for n in range(4)), total.s())().get(JOB_DEADLINE) == 10
    assert add.chunks([(n, n) for n in range(4)], 2)().get(JOB_DEADLINE) == [[0, 2], [4, 6]]
    assert chain(group(add.s(1, 1), add.s(2, 2)), total.s(), add.s(1))().get(JOB_DEADLINE) == 7
    event_log = Path(os.environ["SHOP_EVENT_LOG"])
    add.apply_async((1, 1), link=remember.si("linked"))
    until(lambda: "linked" in event_log.read_text(), "the link")


def test_countdown_and_eta(served_shop: Any) -> None:
    """A job waits for its time, and is told what time that was."""
    from shop.tasks import told

    now = time.time()
    in_a_second, at_a_time = (
        told.apply_async(countdown=1),
        told.apply_async(eta=datetime.now(UTC) + timedelta(seconds=1)),
    )
    for sent in (in_a_second, at_a_time):
        found = sent.get(JOB_DEADLINE)
        assert found["at"] >= now + 0.99
        assert abs(datetime.fromisoformat(found["eta"]).timestamp() - (now + 1)) < 1
    assert told.delay().get(JOB_DEADLINE)["eta"] is None
    for_long = told.apply_async(countdown=60)

    def scheduled() -> set[str]:
        answer = served_shop.control.inspect(["main@shop"], timeout=2).scheduled() or {}
        return {job["request"]["id"] for job in answer.get("main@shop", ())}

    until(lambda: for_long.id in scheduled(), "it is shown among the scheduled")
    for_long.revoke()


def test_retries(served_shop: Any, event_log: Path) -> None:
    """By hand and by themselves, up to the task's own number."""
    from shop.tasks import Declined, stubborn, stubborn_by_itself

    assert stubborn.delay(2).get(JOB_DEADLINE) == 2
    with pytest.raises((Declined, MaxRetriesExceededError)):
        stubborn.delay(9).get(JOB_DEADLINE)
    with pytest.raises(Declined):
        stubborn_by_itself.delay().get(JOB_DEADLINE)
    assert event_log.read_text().count("try") == 3


def test_a_requeued_job_goes_behind_the_others(served_shop: Any, event_log: Path) -> None:
    """`Reject(requeue=True)` neither starves the queue nor is the job dead-lettered after some number of times."""
    from shop.tasks import add, not_yet

    sent = not_yet.delay(12, "patient")
    assert add.delay(1, 1).get(JOB_DEADLINE) == 2
    assert sent.get(JOB_DEADLINE) == "patient"
    lines = event_log.read_text().splitlines()
    assert lines[0] == "not_yet patient None" or lines[0] == "not_yet patient False"
    assert set(lines[1:]) == {"not_yet patient True"}
    assert len(lines) == 13


def test_a_rejected_job_is_gone(served_shop: Any, redis: Redis, event_log: Path) -> None:
    """`Reject(requeue=False)` leaves nothing behind in the broker."""
    from shop.tasks import add, never

    add.delay(0, 0).get(JOB_DEADLINE)
    for n in range(3):
        never.delay(n)
    until(lambda: event_log.read_text().count("never") == 3, "rejected")
    assert add.delay(1, 1).get(JOB_DEADLINE) == 2
    until(lambda: not redis.exists("unacked"), "nothing is unacknowledged")
    kept = [key for key in redis.scan_iter() if not key.startswith(("_kombu", "celery-task-meta", "unacked"))]
    assert not [key for key in kept if redis.type(key) in {"list", "zset", "hash"}], kept


@pytest.mark.parametrize("name", ["SimpleQueue", "SimpleBuffer"])
def test_simple_queues_take_one_message_at_a_time(shop: Any, name: str) -> None:
    """What was not taken out is still there for the next reader."""
    with shop.connection_for_write() as connection, getattr(connection, name)(f"drawer-{name}") as drawer:
        for n in range(4):
            drawer.put({"n": n}, serializer="json")
        first = drawer.get(timeout=5)
        assert first.payload == {"n": 0}
        first.ack()
        if name == "SimpleBuffer":
            assert isinstance(drawer, SimpleBuffer)
    with shop.connection_for_write() as connection, getattr(connection, name)(f"drawer-{name}") as drawer:
        rest = []
        for _ in range(3):
            message = drawer.get(timeout=5)
            rest.append(message.payload["n"])
            message.ack()
        assert sorted(rest) == [1, 2, 3]


def test_messages_of_any_other_producer_and_consumer(shop: Any) -> None:
    """`basic_get`, `requeue`, `reject` and the length of a queue are kombu's own."""
    with shop.connection_for_write() as connection:
        channel = connection.default_channel
        queue = Queue("letters", routing_key="letters")(channel)
        queue.declare()
        with connection.Producer() as producer:
            for n in range(3):
                producer.publish({"n": n}, routing_key="letters", serializer="json")
        assert queue.queue_declare(passive=True).message_count == 3
        first = queue.get()
        assert not first.delivery_info.get("redelivered")
        first.requeue()
        assert [queue.get(no_ack=True).payload["n"] for _ in range(3)] == [1, 2, 0]
        assert queue.get() is None
        queue.delete()


@pytest.mark.parametrize("no_ack", [False, True])
def test_a_consumer_takes_one_message_at_a_time(shop: Any, redis: Redis, no_ack: bool) -> None:
    """One that knows no prefetch limit takes what one `drain_events` hands over; unacknowledged, it is put back."""
    name, got = f"tray-{no_ack}", []
    with shop.connection_for_write() as connection:
        with connection.Producer() as producer:
            for n in range(4):
                producer.publish({"n": n}, routing_key=name, serializer="json", declare=[Queue(name, routing_key=name)])
        queues = [Queue(name, routing_key=name)]
        with connection.Consumer(queues, callbacks=[lambda body, _: got.append(body["n"])], no_ack=no_ack):
            connection.drain_events(timeout=5)
        assert got == [0]
    until(lambda: redis.llen(name) == (3 if no_ack else 4), "the others are there")


def test_a_queue_expires(shop: Any, redis: Redis) -> None:
    """`Queue(expires=…)`: what nobody came for goes after its time."""
    with shop.connection_for_write() as connection:
        queue = Queue("brief", routing_key="brief", expires=1.0)(connection.default_channel)
        queue.declare()
        with connection.Producer() as producer:
            producer.publish({"n": 1}, routing_key="brief", serializer="json")
        assert redis.llen("brief") == 1
        assert 0 < redis.pttl("brief") <= 1000
        until(lambda: not redis.exists("brief"), "expired", 10)


def test_purge_empties_what_it_is_told(shop: Any, redis: Redis) -> None:
    """`celery purge -Q` takes these queues' messages, and says how many; with a time to wait for, too."""
    from shop.tasks import add

    for n in range(3):
        add.apply_async((n, n), queue="io", countdown=60 * (n % 2))
    add.apply_async((1, 1), queue="cards")
    assert "Purged 3 messages" in command("shop", "purge", "-f", "-Q", "io", cwd=HERE)
    assert (redis.llen("io"), redis.llen("cards")) == (0, 1)
    assert "Purged 1 message" in command("shop", "purge", "-f", "-Q", "cards", cwd=HERE)


def test_time_limits(served_shop: Any) -> None:
    """A task's own limits end it."""
    from shop.tasks import almost_endless, endless

    soft, hard = almost_endless.delay(), endless.delay()
    assert soft.get(JOB_DEADLINE) == "cleaned up"
    with pytest.raises(TimeLimitExceeded):
        hard.get(JOB_DEADLINE)


def test_other_options_of_a_task(served_shop: Any) -> None:
    """Rate limits, shared tasks, message expiry, revoking."""
    from celery.exceptions import TaskRevokedError
    from shop.tasks import add, limited, shared

    assert [limited.delay(n).get(JOB_DEADLINE) for n in range(3)] == [0, 1, 2]
    assert shared.delay(7).get(JOB_DEADLINE) == 7
    late = add.apply_async((1, 1), countdown=0.5, expires=0.1)
    with pytest.raises(TaskRevokedError):
        late.get(JOB_DEADLINE)
    served_shop.control.rate_limit("shop.tasks.limited", "10/s", destination=["main@shop"])
    revoked = add.apply_async((1, 1), countdown=1)
    revoked.revoke()
    with pytest.raises(TaskRevokedError):
        revoked.get(JOB_DEADLINE)


def test_commands_work(served_shop: Any) -> None:
    """`call`, `result`, `inspect`, `status`, `report`: as an operator types them."""
    sent = command("shop", "call", "shop.tasks.add", "--args", "[1, 2]", cwd=HERE).strip()
    assert served_shop.AsyncResult(sent).get(JOB_DEADLINE) == 3
    assert "3" in command("shop", "result", sent, cwd=HERE)
    assert "main@shop: OK" in command("shop", "inspect", "ping", "-d", "main@shop", cwd=HERE)


def test_no_result_backend_means_none(folder: Path, redis: Redis) -> None:
    """A shop without a result backend stores nothing, anywhere."""
    asked = (
        "from shop.tasks import remember; from shop.celery import app\n"
        "print(type(app.backend).__name__); sent = remember.apply_async(('nothing stored',), queue='io')\n"
        "try: sent.get(timeout=1)\n"
        "except NotImplementedError: print('NotImplementedError')\n"
    )
    env = {**os.environ, "SHOP_BACKEND": ""}
    event_log = Path(os.environ["SHOP_EVENT_LOG"])
    before = set(redis.keys("celery-task-meta-*"))
    done = subprocess.run([sys.executable, "-c", asked], cwd=HERE, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["DisabledBackend", "NotImplementedError"]
    arguments = ("worker", "-Q", "io", "-n", "io@shop", "-P", "gevent", "-c", "20", "-l", "INFO")
    with process(
        "shop", *arguments, log=folder / "io.log", cwd=HERE, ready="ready.", gently=False, SHOP_BACKEND=""
    ) as worker:
        until(lambda: "nothing stored" in event_log.read_text(), "the job")
        assert "gevent" in worker.text
    assert set(redis.keys("celery-task-meta-*")) == before


def test_eager_without_a_broker(folder: Path) -> None:
    """A project's own unit tests: `memory://`, eager, no server anywhere."""
    asked = (
        "from shop.celery import app\n"
        "app.conf.update(task_always_eager=True, task_eager_propagates=True)\n"
        "from shop.tasks import add, pack, Order; from celery import chain\n"
        "assert pack.delay(Order(1, frozenset())).get().number == 2\n"
        "assert chain(add.s(1, 2), add.s(3))().get() == 6\n"
        "assert add.apply_async((1, 2), queue='whatever').get() == 3\n"
    )
    env = {**os.environ, "SHOP_BROKER": "memory://", "SHOP_BACKEND": "cache+memory://"}
    subprocess.run([sys.executable, "-c", asked], cwd=HERE, env=env, check=True, timeout=JOB_DEADLINE)


def test_a_conftest_sets_another_broker(redis: Redis) -> None:
    """Settings that change once the configuration was read hold from then on."""
    asked = (
        "import os; from shop.celery import app; from shop.tasks import add\n"
        "app.conf.task_routes; app.amqp.queues; app.finalize()\n"
        "app.conf.update(broker_url=os.environ['OTHER'], result_backend=os.environ['OTHER'], task_serializer='json')\n"
        "sent = add.apply_async((2, 2), queue='elsewhere')\n"
        "print(app.connection_for_write().virtual_host, app.backend.client.connection_pool.connection_kwargs['db'])\n"
    )
    env = {**os.environ, "OTHER": os.environ["SHOP_OTHER"]}
    done = subprocess.run([sys.executable, "-c", asked], cwd=HERE, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [os.environ["SHOP_OTHER"].rpartition("/")[2]] * 2
    assert redis.llen("elsewhere") == 0


def test_a_second_configuration_replaces_the_first(redis: Redis) -> None:
    """`config_from_object` again: an application that is configured anew, as factories do."""
    asked = (
        "import os; from shop.celery import app; app.conf.task_routes\n"
        "app.config_from_object({'broker_url': os.environ['SHOP_BROKER'], 'task_default_queue': 'anew'}, force=True)\n"
        "from shop.tasks import add; add.delay(1, 1)\n"
        "print(app.conf.task_default_queue, app.conf.task_serializer)\n"
    )
    done = subprocess.run([sys.executable, "-c", asked], cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["anew", "json"]
    assert redis.lpop("anew") is not None

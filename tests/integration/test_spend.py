"""What a real worker's calls have cost, and who is told of it."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import click
import pytest
from celery import Celery
from click.testing import CliRunner
from kit.client_rig import IN_TIME_S, Rig, drop_jobs, fresh, params, rig
from kit.waiting import wait_until
from prometheus_client import CollectorRegistry

from celery_app import create_app
from celery_app.budget import Usage
from celery_app.budget.prices import used_usd
from celery_app.checks import check
from celery_app.cli.spend import spend
from celery_app.cli.status import status
from celery_app.cli.top import top
from celery_app.cli.why import why
from celery_app.client import Client
from celery_app.configuration.prices import Price
from celery_app.connections.redis_client import redis_client
from celery_app.errors import InvalidSettings
from celery_app.metrics.overview import Overview
from celery_app.metrics.prometheus import LanesCollector
from celery_app.metrics.spent import Amounts, Spent, spent_by_day, spent_by_hour
from celery_app.metrics.stats import get_queue_stats
from celery_app.settings import Settings
from tests.conftest import close

PRICES = {"cheap": {"in": 1, "out": 5}, "dear*": {"in": 15, "out": 75, "cache_read": 1.5}}

#: The same, as the simulated API writes its bill.
OF_THE_API = {
    "cheap": {"input": 1, "output": 5, "cache_write": 1.25, "cache_write_1h": 2, "cache_read": 0.1},
    "dear*": {"input": 15, "output": 75, "cache_write": 18.75, "cache_write_1h": 30, "cache_read": 1.5},
}

#: A prompt that is written to the API's cache.
CACHED: Any = [{"type": "text", "text": "word " * 9_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]


class Hook:
    """A webhook of this test's own.

    Attributes:
        url: where it is.
        told: what it was told; the first message it refuses.
        paths: that were asked for.
    """

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.tries = 0

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve it."""
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.tries += 1
                if hook.tries > 1:
                    hook.told.append(json.loads(body))
                self.send_response(204 if hook.tries > 1 else 503)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/secret-path"
            server.shutdown()


@pytest.fixture(scope="module")
def hook():
    """A webhook."""
    return Hook()


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory, hook):
    """A worker with prices, and a webhook."""
    with hook.running() as url:
        env = {"EZAI_PRICES": json.dumps(PRICES), "EZAI_USD_WEBHOOK": url}
        with rig(valkey, 11, tmp_path_factory.mktemp("worker"), slots=4, **env) as up:
            yield up


@pytest.fixture
def up(shared):
    """The same, with nothing spent."""
    redis = redis_client(shared.app)
    drop_jobs(redis)
    for key in (*redis.keys("lanes:spent:*"), "lanes:caps"):
        redis.delete(key)
    return fresh(shared)


def spent_after(up: Rig, calls: int) -> Spent:
    """Return what was spent today once so many calls are settled."""
    wait_until(lambda: spent_by_day(up.app)[0].total.calls >= calls, "the calls are settled")
    return spent_by_day(up.app)[0]


def price_of(model: str) -> Price:
    """Return the price of a model."""
    return Price.model_validate(next(PRICES[each] for each in PRICES if model.startswith(each[:4])))


@pytest.fixture(scope="module")
def with_prices(shared):
    """A web app's side that knows the prices; its pools are those of the other one."""
    broker = shared.env["CELERY_BROKER_URL"]
    prices = {pattern: price_of(pattern) for pattern in PRICES}
    app = create_app(Settings(broker_url=broker, result_backend=broker, prices=prices))
    yield app
    close(app)


def printed(app: Celery, command: click.Command, *words: str) -> str:
    """Return what a command prints."""
    done = CliRunner().invoke(command, words, obj=SimpleNamespace(app=app), catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def bill(model: str, message: dict[str, Any]) -> int:
    """Return nanodollars of an answer, by the prices and its usage."""
    usage = Usage.of(message)
    assert usage is not None
    return used_usd(price_of(model), usage)


def test_what_is_spent_is_usage_by_price(up):
    """By lane, by model, by tenant and by batch, to the nanodollar, and as the API's own bill has it."""
    up.api.control(output_tokens=40, prices=OF_THE_API)
    asked = [
        ("critical", "cheap", "acme", "hi"),
        ("normal", "dear-1", "acme", "a longer question" * 9),
        ("normal", "cheap", None, "x"),
        ("critical", "dear-1", "other", CACHED),
    ]
    sent = [
        (lane, model, tenant, up.client.submit(lane, tenant=tenant, **params(text, model=model)))
        for lane, model, tenant, text in asked
    ]
    usd: Counter[tuple[str, str]] = Counter()
    for lane, model, tenant, result in sent:
        price = bill(model, result.get(timeout=IN_TIME_S))
        for each in (("lane", lane), ("model", model), ("tenant", tenant or "")):
            usd[each] += price
    batch = up.client.submit_many([params(f"item {n}", model="cheap") for n in range(3)], tenant="acme")
    of_batch = sum(bill("cheap", result.message or {}) for result in batch.results(patience=IN_TIME_S))
    for each in (("lane", "batch"), ("model", "cheap"), ("tenant", "acme")):
        usd[each] += of_batch

    spent = spent_after(up, 7)
    found = {(kind, name): round(each.usd * 1e9) for kind, by in spent.by.items() for name, each in by.items()}
    assert found == usd
    assert round(spent.total.usd * 1e9) == sum(amount for (kind, _), amount in usd.items() if kind == "lane")
    assert spent.total.usd == pytest.approx(up.api.bill()["dollars"], abs=1e-12)
    assert sum(hour.total.calls for hour in spent_by_hour(up.app, 2)) == 7
    assert round(batch.counts().usd * 1e9) == of_batch


def test_what_the_api_refuses_costs_nothing(up):
    """Neither a bad request nor an error of the API's is billed."""
    for fault in ("400", "500"):
        up.client.submit("critical", **params("x", fault=fault, model="cheap")).get(timeout=IN_TIME_S, propagate=False)
    assert spent_by_day(up.app)[0].total.usd == 0


def test_the_webhook_is_called_once_when_a_cap_is_nearly_used_up(up, hook):
    """Again where it refuses, and with neither a prompt nor a key; the worker goes on meanwhile, and logs it once."""
    up.api.control(output_tokens=100)
    redis_client(up.app).hset("lanes:caps", "tenant|acme", round(3 * 100 * 5_000 * 1.1))
    for _ in range(6):
        up.client.submit("normal", tenant="acme", **params("Rumpelstiltskin", model="cheap")).get(timeout=IN_TIME_S)
    wait_until(lambda: hook.told, "the webhook is told")
    (told,) = hook.told
    assert (told["event"], told["cap"], told["name"]) == ("usd_nearly_spent", "tenant", "acme")
    assert 0.8 <= told["spent_usd"] / told["limit_usd"] < 1.2
    assert hook.tries == 2
    text = up.worker.output()
    assert text.count("of its cap of") == 1
    for secret in ("Rumpelstiltskin", "secret-path"):
        assert secret not in json.dumps(told)
        assert secret not in text


def test_the_command_shows_what_was_spent(up, with_prices):
    """As a table, and as JSON."""
    up.client.submit("critical", tenant="acme", **params("x", model="cheap")).get(timeout=IN_TIME_S)
    up.client.submit("critical", tenant="acme", **params("x", model="unheard")).get(timeout=IN_TIME_S)
    spent = spent_after(up, 2)
    line = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", "spend", "--json", "--days", "2"]
    done = subprocess.run(line, env=up.env, capture_output=True, text=True, timeout=IN_TIME_S, check=True)
    told = json.loads(done.stdout)
    today, yesterday = told["windows"]
    assert (today["window"], today["calls"], today["unpriced"]) == (spent.window, 2, {"unheard": 1})
    assert today["by"]["tenant"] == {"acme": spent.by["tenant"]["acme"]._asdict()}
    assert yesterday["calls"] == 0
    table = printed(with_prices, spend)
    assert "no price in EZAI_PRICES fits unheard" in table
    assert any(row.split()[:3] == ["tenant", "acme", "2"] for row in table.splitlines())
    assert spent.by["model"]["unheard"] == Amounts(1, 0, 0)
    found = {each.words for each in check(with_prices, "celery") if each.what == "prices"}
    assert any("none for unheard" in words for words in found)
    assert any("for models like cheap, dear*" in words for words in found)


def test_a_dry_run_says_what_a_batch_will_cost_and_queues_nothing(up, with_prices):
    """As its model lately answered it is near the truth; half of that in message batches; and never above its most."""
    up.api.control(output_tokens=60)
    items = [
        params(f"Document {n}: " + "some words of a text " * 20, model="cheap", max_tokens=4_000) for n in range(20)
    ]
    client = Client(with_prices)
    first = client.submit_many(items, dry_run=True)
    assert redis_client(up.app).hlen("lanes:jobs") == 0
    assert up.api.summary()["total"] == 0
    assert first.total.jobs == 20
    list(up.client.submit_many(items).results(patience=IN_TIME_S))
    paid = spent_after(up, 20).total.usd

    known = client.submit_many([*items, params("x", model="unheard"), {"model": "m"}], dry_run=True, on_invalid="skip")
    assert known.total == known.by_model["cheap"]
    assert known.total.live == pytest.approx(paid, rel=0.25)
    assert known.total.in_batches == pytest.approx(known.total.live / 2)
    assert max(paid, known.total.live) <= first.total.at_most == known.total.at_most
    assert (known.unpriced, [each.index for each in known.invalid]) == ({"unheard": 1}, [21])


def test_whoever_looks_at_the_lanes_sees_what_is_spent(up, with_prices):
    """The function, the command for reasons, the screen and the exporter tell the same."""
    redis_client(up.app).hset("lanes:caps", mapping={"all|": 10**9, "lane|critical": 10**8, "tenant|acme": 1})
    up.client.submit("critical", tenant="acme", **params("x", model="dear-1")).get(timeout=IN_TIME_S)
    usd = spent_after(up, 1).total.usd
    assert usd > 0

    stats, seen = get_queue_stats(with_prices), Overview(with_prices, "celery").look()
    day = spent_by_day(up.app)[0].window
    assert stats["spent"] == seen["spent"] == {"day": day, "usd": usd, "usd_saved": 0.0}
    for lanes in (stats["lanes"], seen["lanes"]):
        assert (lanes["critical"]["usd_today"], lanes["batch"]["usd_today"]) == (usd, 0)
    registry = CollectorRegistry()
    registry.register(LanesCollector(with_prices))
    assert registry.get_sample_value("lanes_usd_today", {"lane": "critical"}) == usd
    assert (registry.get_sample_value("lanes_usd_total", {"lane": "critical"}) or 0) >= usd
    used = {cap: registry.get_sample_value("lanes_usd_cap_used", {"cap": cap}) for cap in ("all", "critical", "acme")}
    assert used == {"all": pytest.approx(usd), "critical": pytest.approx(10 * usd), "acme": None}
    assert "usd_today" not in get_queue_stats(up.app)["lanes"]["critical"]
    told = json.loads(printed(with_prices, why, "critical", "--json"))
    assert told["critical"]["usd_today"] == usd
    assert f"spent ${usd:.4f} today" in printed(with_prices, why, "critical")
    assert f"${usd:.4f}" in printed(with_prices, status)
    assert f"spent ${usd:.4f} today" in printed(with_prices, top, "--once")


def test_a_dry_run_without_prices_is_refused():
    """It does not say that a batch is free."""
    app = create_app(Settings())
    with pytest.raises(InvalidSettings, match="EZAI_PRICES is not set"):
        Client(app).submit_many([params("x")], dry_run=True)
    app.close()

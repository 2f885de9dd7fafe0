import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import anthropic
import pytest
from kit.batches_rig import DEADLINE_S, connected, ended, request, requests
from kit.waiting import wait_until

from demo.simulator import Behaviour, Price, running

KEY = "sk-ant-test-0123456789"
PRICE = Price(input=100.0, output=1_000.0, cache_write=200.0, cache_write_1h=400.0, cache_read=10.0)
PREFIX = [{"type": "text", "text": "rules " * 3_000, "cache_control": {"type": "ephemeral"}}]  # 4,500 tokens
HOUR = [{**PREFIX[0], "cache_control": {"type": "ephemeral", "ttl": "1h"}}]


@pytest.fixture
def server():
    """A simulated API that answers at once with 16 tokens, and all models at one price."""
    with running(prices={"*": PRICE}) as server:
        yield server


@contextmanager
def client_of(server, key=KEY):
    """Give the real SDK, without retries."""
    with anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=DEADLINE_S) as client:
        yield client


@pytest.fixture
def client(server):
    """The real SDK."""
    with client_of(server) as client:
        yield client


def ask(client: anthropic.Anthropic, text: str = "four", **more: Any) -> Any:
    """Ask for a message."""
    messages: Any = [{"role": "user", "content": text}]
    return client.messages.create(**{"model": "m", "max_tokens": 100, "messages": messages, **more})


# Prompt caches


def test_calls_at_the_same_time_all_write():
    """A prefix is in the cache from the first byte of the first answer: whoever came before that has to write it."""
    with running(Behaviour(latency=1.5)) as server, client_of(server) as client, ThreadPoolExecutor(4) as threads:
        first = [each.result().usage for each in [threads.submit(ask, client, system=PREFIX) for _ in range(4)]]
        assert [usage.cache_creation_input_tokens for usage in first] == [4_500] * 4
        server.control(latency=0)
        assert ask(client, system=PREFIX).usage.cache_read_input_tokens == 4_500


def test_a_stream_that_began_is_enough(server, client):
    """While the first answer still streams, others read the prefix already."""
    server.control(tokens_per_second=1)
    messages: Any = [{"role": "user", "content": "four"}]
    with client.messages.stream(model="m", max_tokens=100, messages=messages, system=PREFIX) as stream:
        next(iter(stream))
        server.control(tokens_per_second=0)
        assert ask(client, system=PREFIX).usage.cache_read_input_tokens == 4_500


def test_a_failed_call_caches_nothing(client):
    """A call that is answered with an error leaves no prefix behind."""
    with pytest.raises(anthropic.InternalServerError):
        ask(client, system=PREFIX, extra_headers={"x-simulate": "server_error"})
    assert ask(client, system=PREFIX).usage.cache_creation_input_tokens == 4_500


def test_usage_tells_how_long_a_prefix_is_kept(client):
    """Tokens that are written for five minutes and for an hour are told apart."""
    usage = ask(client, system=HOUR).usage
    assert (usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens) == (1, 4_500, 0)
    assert usage.cache_creation.ephemeral_1h_input_tokens == 4_500
    assert usage.cache_creation.ephemeral_5m_input_tokens == 0


def test_what_is_cached_is_neither_read_nor_counted_again(server, client):
    """A hit's first byte comes sooner by what it takes to read the prefix, and it takes nothing of the limit."""
    server.control(prompt_tokens_per_second=10_000, itpm=20_000)  # 5,000 at once
    for _ in range(5):
        ask(client, system=PREFIX)
    took = [call["ended"] - call["arrived"] for call in server.calls()]
    assert took[0] > 0.45
    assert min(took[1:]) < 0.45
    assert [call["cache_read_tokens"] for call in server.calls()] == [0, 4_500, 4_500, 4_500, 4_500]


def test_a_prefix_expires(server, client):
    """After its five minutes, of which a time scale makes less, it is written again."""
    server.control(time_scale=3_000)  # 0.1 s
    ask(client, system=PREFIX)
    time.sleep(0.15)  # each look would make it live longer
    assert ask(client, system=PREFIX).usage.cache_creation_input_tokens == 4_500


# The bill


def test_each_kind_of_token_has_its_price(server, client):
    """A live answer costs its tokens, those written to a cache or read from it at prices of their own."""
    ask(client)
    assert server.bill()["dollars"] == pytest.approx((1 * 100 + 16 * 1_000) / 1e6)
    ask(client, system=PREFIX)
    ask(client, system=PREFIX)
    ask(client, system=HOUR, model="other")
    bill = server.bill()
    in_caches = 4_500 * (200 + 10 + 400)
    assert bill["dollars"] == pytest.approx((4 * 100 + 4 * 16 * 1_000 + in_caches) / 1e6)
    assert (bill["calls"], bill["input_tokens"], bill["output_tokens"]) == (4, 4, 64)
    assert (bill["cache_creation_input_tokens"], bill["cache_read_input_tokens"]) == (9_000, 4_500)


def test_a_batch_costs_half_and_only_for_its_answers(server):
    """What a batch answers costs half; what is errored or canceled costs nothing."""
    server.control(endless_batch=1)
    with connected(server) as batches:
        batch = batches.create(requests=[*requests(10), request("bad", model="unknown-1")])
        wait_until(lambda: server.batches()["batches"][0]["waiting"] == 6, "half of the answers")
        batches.cancel(batch.id)
        answered = ended(batches, batch.id).request_counts.succeeded
    bill = server.bill()
    assert bill["calls"] == bill["answered"]["custom_ids"]["answers"] == answered
    assert bill["dollars_if_live"] == pytest.approx(answered * (2 * 100 + 16 * 1_000) / 1e6)
    assert bill["dollars"] == pytest.approx(bill["dollars_if_live"] / 2)


def test_keys_and_kinds_have_rows_of_their_own(server, client):
    """The bill has a row for each key, kind and model; of a key it shows the end."""
    ask(client)
    with client_of(server, "sk-other-9876") as other:
        ask(other, model="large")
    with connected(server) as batches:
        ended(batches, batches.create(requests=requests(1)).id)
    rows = [(row["key"], row["kind"], row["model"], row["calls"]) for row in server.bill()["rows"]]
    assert rows == [("6789", "batch", "m", 1), ("6789", "live", "m", 1), ("9876", "live", "large", 1)]


def test_who_was_answered_twice_is_seen(server, client):
    """A question that is answered in two batches and live was answered three times."""
    with connected(server) as batches:
        for custom_id in ("first", "first", "second"):
            twice = request(custom_id, messages=[{"role": "user", "content": "the same"}])
            ended(batches, batches.create(requests=[twice, request(f"{custom_id}-own")]).id)
    ask(client, "the same")
    bill = server.bill(answers=True)
    assert bill["answers"]["custom_ids"] == {"first": 2, "first-own": 2, "second": 1, "second-own": 1}
    assert sorted(bill["answers"]["prompts"].values()) == [1, 2, 4]
    assert bill["answered"]["prompts"] == {"answers": 7, "distinct": 3}


@pytest.mark.parametrize(
    ("fault", "paid", "whole"), [("drop_mid_stream", 1, 0), ("usage_behind", 1, 1), ("html", 0, 0)]
)
def test_a_broken_answer_is_paid_for_but_none(server, client, fault, paid, whole):
    """The tokens of a stream that broke off are on the bill, and nobody was answered."""
    messages: Any = [{"role": "user", "content": "four"}]
    with (
        suppress(Exception),
        client.messages.stream(
            model="m", max_tokens=100, messages=messages, extra_headers={"x-simulate": fault}
        ) as stream,
    ):
        stream.until_done()
    wait_until(lambda: server.summary()["in_flight"] == 0, "the end of the call")
    bill = server.bill()
    assert (bill["calls"], bill["answered"]["prompts"]["answers"]) == (paid, whole)


def test_the_bill_can_be_read_and_forgotten_over_http(server, client):
    """/_bill shows it, with every answer if asked, and forgets it."""
    ask(client)
    with urllib.request.urlopen(f"{server.url}/_bill?answers=1", timeout=DEADLINE_S) as response:  # noqa: S310
        assert json.load(response) == server.bill(answers=True)
    forget = urllib.request.Request(f"{server.url}/_bill", method="DELETE")  # noqa: S310
    urllib.request.urlopen(forget, timeout=DEADLINE_S).close()  # noqa: S310
    assert (server.bill()["dollars"], server.bill()["rows"]) == (0, [])


def test_prices_can_be_changed(server, client):
    """Prices are changed by model pattern; what is not named stays."""
    server.control(prices={"m*": {"output": 0}, "*": {"input": 0}})
    ask(client)
    ask(client, model="other")
    assert [row["dollars"] for row in server.bill()["rows"]] == pytest.approx([1e-6, 16_000 / 1e6])

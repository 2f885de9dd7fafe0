import http.client
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx2
import pytest
from kit.waiting import wait_until

from demo.run import CLASSES, CLASSIFY
from demo.simulator import ApiLimits, Behaviour, RunningServer, running
from demo.simulator.replies import FILLER

MODEL = "claude-haiku-4-5"
KEY = "sk-ant-test-0123456789"
# For what takes milliseconds: a test that waits longer has failed.
DEADLINE_S = 10.0


@pytest.fixture
def server():
    """A simulated API that answers at once, without limits."""
    with running() as server:
        yield server


@pytest.fixture
def client(server):
    """The real SDK, which sees every answer once: it does not retry."""
    with connected(server) as client:
        yield client


def connected(server: RunningServer, key: str = KEY) -> anthropic.Anthropic:
    """Give an SDK client that calls the server."""
    return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=DEADLINE_S)


def ask(client: anthropic.Anthropic, text: str = "hello", **more: Any) -> Any:
    """Ask for a message."""
    params = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": text}], **more}
    return client.messages.create(**params)


def simulate(client: anthropic.Anthropic, fault: str, **more: Any) -> Any:
    """Ask for a message that goes wrong in a certain way."""
    return ask(client, extra_headers={"x-simulate": fault}, **more)


def post(url: str, body: bytes, *, key: str | None = KEY, method: str = "POST") -> tuple[int, dict[str, Any], Any]:
    """Send a request without the SDK; give the status, the JSON body and the headers."""
    request = urllib.request.Request(url, body, headers={"x-api-key": key} if key else {}, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:  # noqa: S310
            return response.status, json.loads(response.read() or b"{}"), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read()), error.headers


# Messages


def test_a_message_echoes_its_prompt(client):
    """An answer carries the prompt's beginning, as many tokens as usage says, and an id."""
    message = ask(client, "the quick brown fox", max_tokens=100)
    assert message.content[0].text.startswith("You said: the quick brown fox…")
    assert len(message.content[0].text.split("…")[1].split()) == message.usage.output_tokens - 1
    assert message.stop_reason == "end_turn"
    assert message._request_id.startswith("req_")


def test_an_answer_is_prose(client):
    """What follows the echo is sentences, and one of them says that no model has written them."""
    prose = ask(client, "why is the sky blue?", max_tokens=100).content[0].text.split("…", 1)[1]
    assert prose.startswith(" In short: ")
    assert not re.search(r"\b(\w+) \1\b", prose)
    assert "simulated" in "".join(FILLER)


@pytest.mark.parametrize(
    ("where", "instruction", "classes"),
    [
        ("system", CLASSIFY, CLASSES),
        ("system", "Answer with one of these labels: 'spam' or 'no spam'.", ["spam", "no spam"]),
        ("user", "Classify the mood as one of: good, bad, mixed.", ["good", "bad", "mixed"]),
    ],
)
def test_a_classification_is_answered_with_a_class(client, where, instruction, classes):
    """A prompt that names classes gets one of them and nothing else, for the same document always the same."""
    documents = [f"{number} documents came in" for number in range(20)]
    if where == "user":
        answers = [[ask(client, f"{instruction} {text}\n{text}") for text in documents] for _ in range(2)]
    else:
        answers = [[ask(client, text, system=instruction) for text in documents] for _ in range(2)]
    first, second = ([message.content[0].text for message in messages] for messages in answers)
    assert first == second
    assert set(first) <= set(classes)
    assert len(set(first)) > 1
    assert {message.usage.output_tokens for message in answers[0]} == {1}


def test_max_tokens_ends_an_answer(client):
    """No answer is longer than its caller allows, and the stop reason says why it ended."""
    message = ask(client, max_tokens=3)
    assert message.usage.output_tokens == 3
    assert message.stop_reason == "max_tokens"


def test_a_stream_has_the_events_of_the_real_api(client):
    """Events come in the order that the Messages API documents, with one delta per token."""
    kinds = [event.type for event in ask(client, max_tokens=4, stream=True)]
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 4,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_tokens_come_at_their_pace(server, client):
    """A stream of ten tokens at fifty per second takes a fifth of a second."""
    server.control(tokens_per_second=50, output_tokens=10)
    times = [time.monotonic() for event in ask(client, stream=True) if event.type == "content_block_delta"]
    assert times[-1] - times[0] == pytest.approx(9 / 50, abs=0.1)


TOOL = {
    "name": "classify",
    "input_schema": {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}, "why": {"type": "string"}}},
}


def test_cache_reads_follow_creation(client):
    """A prefix with cache_control is created by the first call and read by the next."""
    system = [{"type": "text", "text": "rules " * 1_000, "cache_control": {"type": "ephemeral"}}]
    first, second = (ask(client, text, system=system).usage for text in ("one", "two"))
    assert first.cache_creation_input_tokens == second.cache_read_input_tokens == 1_500
    assert first.cache_read_input_tokens == second.cache_creation_input_tokens == 0


# Refusals


@pytest.mark.parametrize("header", ["x-api-key", "Authorization"])
def test_a_key_is_needed(header):
    """Only accepted keys are let in, in either header, and the refusal is a 401."""
    with running(keys=["good-key"]) as server:
        for key, refused in (("good-key", False), ("bad-key", True)):
            credentials: Any = {"api_key": key} if header == "x-api-key" else {"auth_token": key}
            with anthropic.Anthropic(base_url=server.url, max_retries=0, **credentials) as client:
                if refused:
                    with pytest.raises(anthropic.AuthenticationError):
                        ask(client)
                else:
                    ask(client)


GOOD = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"model": None}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"model": 5}, ""),
        ({"max_tokens": "ten"}, ""),
        ({"messages": "hi"}, ""),
        ({"messages": ["hi"]}, ""),
        ({"messages": [{"role": "user"}]}, ""),
        ({"system": 5}, ""),
        ({"tool_choice": {"type": "any"}}, ""),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, ""),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(server, wrong, named):
    """A request that cannot be answered is a 400, which names a missing field, and has its id in both places."""
    status, body, headers = post(f"{server.url}/v1/messages", json.dumps(GOOD | wrong).encode())
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert body["error"]["message"].startswith(named)
    assert body["request_id"] == headers["request-id"]


# Limits


def test_a_limit_is_exact():
    """A hundred callers at once against a bucket of five: exactly five get through."""
    with running(limits=ApiLimits(rpm=300)) as server, connected(server) as client:
        start = threading.Barrier(100)

        def call(_: int) -> int:
            start.wait(DEADLINE_S)
            try:
                ask(client)
            except anthropic.RateLimitError as error:
                return error.status_code
            return 200

        with ThreadPoolExecutor(100) as threads:
            statuses = Counter(threads.map(call, range(100)))
        assert server.summary()["statuses"] == {str(status): number for status, number in statuses.items()}
        came = [call["arrived"] for call in server.calls()]
        # Five at once, and five a second that it takes to ask.
        assert 5 <= statuses[200] <= 5 + 5 * (max(came) - min(came) + 1)


def test_429_tells_when_to_come_again():
    """A refusal has a retry-after of whole seconds, rounded up, and the state of the limit."""
    with running(limits=ApiLimits(rpm=10)) as server, connected(server) as client:
        ask(client)
        with pytest.raises(anthropic.RateLimitError) as refused:
            ask(client)
    headers = refused.value.response.headers
    assert headers["retry-after"] == "6"
    assert headers["anthropic-ratelimit-requests-limit"] == "10"
    assert headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert refused.value.type == "rate_limit_error"
    assert refused.value.error_code is None


def test_success_tells_what_is_left():
    """Every successful answer has the state of each limit, and all of it fits into a real client."""
    with running(limits=ApiLimits(rpm=600, itpm=400_000, otpm=80_000)) as server, connected(server) as client:
        headers = client.messages.with_raw_response.create(**GOOD).headers
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        for what in ("limit", "remaining", "reset"):
            assert headers[f"anthropic-ratelimit-{kind}-{what}"]
    assert headers["anthropic-ratelimit-requests-remaining"] == "9"
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "100000"


def test_keys_and_models_have_their_own_limits():
    """What one key has used of one family of models is left to every other key and family."""
    table = {"*haiku*": ApiLimits(rpm=1), "*opus*": ApiLimits(rpm=1)}
    with running(limits=table) as server, connected(server) as one, connected(server, "other-key") as other:
        ask(one, model="claude-haiku-4-5")
        ask(one, model="claude-opus-4-9")
        ask(other, model="claude-haiku-4-5")
        with pytest.raises(anthropic.RateLimitError):
            ask(one, model="claude-haiku-4-9")


def test_output_tokens_count_when_produced():
    """A long stream uses up the output limit, although its max_tokens did not."""
    limits = ApiLimits(otpm=160)
    with running(Behaviour(output_tokens=80), limits=limits) as server, connected(server) as client:
        assert len(list(ask(client, max_tokens=4_096, stream=True))) > 80
        with pytest.raises(anthropic.RateLimitError, match="output tokens"):
            ask(client)


def test_calls_in_flight_are_limited():
    """While one stream is open, a key that may have one call in flight gets 429, and afterwards it does not."""
    behaviour = Behaviour(tokens_per_second=100, output_tokens=1_000)
    with running(behaviour, limits=ApiLimits(in_flight=1)) as server, connected(server) as client:
        stream = ask(client, max_tokens=1_000, stream=True)
        next(stream)
        with pytest.raises(anthropic.RateLimitError, match="concurrent connections"):
            ask(client)
        stream.close()
        wait_until(lambda: server.summary()["in_flight"] == 0, "the API has noticed", DEADLINE_S)
        ask(client)


# Faults


def test_a_call_can_hang(server, client):
    """A call that is never answered ends by the caller's timeout, and the log knows who hung up."""
    with pytest.raises(anthropic.APITimeoutError):
        simulate(client.with_options(timeout=0.2), "hang")
    wait_until(lambda: server.summary()["in_flight"] == 0, "the API has noticed", DEADLINE_S)
    call = server.calls()[0]
    assert 0.1 < call["closed_by_client"] - call["arrived"] < DEADLINE_S


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_stopping_ends_what_goes_on(fault):
    """A server that stops closes the calls that it still has, at once."""
    with ThreadPoolExecutor(1) as threads:
        with running() as server:
            client = connected(server)
            call = threads.submit(simulate, client, fault)
            wait_until(lambda: server.summary()["in_flight"] == 1, "the API has noticed", DEADLINE_S)
        with client:
            error = call.exception(DEADLINE_S)
    assert isinstance(error, anthropic.APIConnectionError | httpx2.RemoteProtocolError)


def test_an_unknown_fault_is_refused(client):
    """A misspelt fault does not pass for a healthy call, and those that there are are told."""
    with pytest.raises(anthropic.BadRequestError, match="overloaded"):
        simulate(client, "overlaoded")


def test_rates_befall_calls_that_ask_for_nothing():
    """With a rate of one, every call fails in that way."""
    with running(Behaviour(server_error_rate=1)) as server, connected(server) as client:
        for _ in range(3):
            with pytest.raises(anthropic.InternalServerError):
                ask(client)


# The log, and changes while running


def test_control_changes_a_running_server(server, client):
    """Fields changed over HTTP hold for the next call, and the settings show them."""
    status, settings, _ = post(f"{server.url}/_control", b'{"latency": 0.2, "rpm": 6}', method="PATCH")
    assert status == 200
    assert settings["behaviour"]["latency"] == 0.2
    assert settings["limits"]["*"]["rpm"] == 6
    begun = time.monotonic()
    ask(client)
    assert time.monotonic() - begun >= 0.2
    with pytest.raises(anthropic.RateLimitError):
        ask(client)


@pytest.mark.parametrize(
    ("change", "told"),
    [(b'{"latancy": 1}', "latency"), (b'{"latency": "x"}', "latency"), (b"[]", "object"), (b"{", "JSON")],
)
def test_control_refuses_what_it_does_not_know(server, change, told):
    """A wrong change is a 400 which names the field that was meant."""
    status, body, _ = post(f"{server.url}/_control", change, method="PATCH")
    assert status == 400
    assert told in body["error"]["message"]


def test_the_log_is_a_witness(server, client):
    """Every call is in the log with its time, status, model, user and tokens, and no key is."""
    before = time.time()
    message = ask(client, metadata={"user_id": "job-1"})
    with pytest.raises(anthropic.InternalServerError):
        simulate(client, "overloaded")
    wait_until(lambda: server.summary()["total"] == 2, "the API has noticed", DEADLINE_S)
    good, bad = server.calls()
    assert before <= good["arrived"] <= time.time()
    assert (good["status"], good["model"], good["user_id"]) == (200, MODEL, "job-1")
    assert (good["input_tokens"], good["output_tokens"]) == (message.usage.input_tokens, message.usage.output_tokens)
    assert (bad["status"], bad["fault"]) == (529, "overloaded")
    assert good["key"] == KEY[-4:]
    assert KEY not in json.dumps(server.calls())


def test_the_log_can_be_read_and_cleared_over_http(server, client):
    """The log over HTTP is the log, its summary leaves out the calls, and cleared it is empty."""
    ask(client)
    wait_until(lambda: server.summary()["total"] == 1, "the API has noticed", DEADLINE_S)
    url = f"{server.url}/_calls"
    assert post(url, b"", method="GET")[1]["calls"] == server.calls()
    summary = post(f"{url}?summary=1", b"", method="GET")[1]
    assert summary["statuses"] == {"200": 1}
    assert "calls" not in summary
    assert post(url, b"", method="DELETE")[0] == 204
    assert post(url, b"", method="GET")[1]["calls"] == []


def test_a_client_that_hangs_up_is_noticed(server, client):
    """A stream that its caller closes is produced no further, and the log says when."""
    server.control(tokens_per_second=100, output_tokens=1_000)
    stream = ask(client, max_tokens=1_000, stream=True)
    next(stream)
    stream.close()
    wait_until(lambda: server.calls()[0]["closed_by_client"], "the API has noticed", DEADLINE_S)
    call = server.calls()[0]
    assert time.time() - DEADLINE_S < call["closed_by_client"] <= time.time()
    assert call["output_tokens"] < 1_000
    wait_until(lambda: server.summary()["in_flight"] == 0, "the API has noticed", DEADLINE_S)


def test_connections_are_kept_alive(server):
    """Many calls fit on one connection, refusals among them."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=DEADLINE_S)
    sockets = set()
    for body in (GOOD, {}, GOOD):
        connection.request("POST", "/v1/messages", json.dumps(body), {"x-api-key": KEY})
        sockets.add(connection.sock)
        connection.getresponse().read()
    connection.close()
    assert len(sockets) == 1

"""Each recipe of docs/recipes.md does what the page says, with a real broker, worker, web server and API over HTTP."""

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from acceptance.recipe_rig import (
    IN_TIME_S,
    RECIPES,
    Answer,
    Rig,
    Site,
    django_site,
    fresh,
    recipe,
    rig,
    served,
    without_worker,
)
from asgiref.testing import ApplicationCommunicator
from celery.exceptions import ChordError
from django.test import RequestFactory
from kit.waiting import in_time, wait_until

from celery_app import Batch, cancel, get_queue_stats, submit
from celery_app.configuration.prices import Price
from celery_app.connections.redis_client import redis_client
from celery_app.errors import InvalidItem, UnknownBatch
from celery_app.settings import settings_of

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

REQUEST = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}

#: Tokens a second of an answer that is to be read while it is produced.
SLOWLY = 40


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """One worker for all tests."""
    with rig(valkey, 12, tmp_path_factory.mktemp("worker")) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test."""
    return fresh(shared)


def result_of(up: Rig, task_id: str) -> Any:
    """Wait for a job's result."""
    return up.app.AsyncResult(task_id).get(timeout=IN_TIME_S)


def text_of(events: Any) -> str:
    """Return the text that a page has after these events."""
    return "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")


def test_each_recipe_is_tested():
    """A recipe that no test runs would rot."""
    names = {f"test_{path.stem}" for path in RECIPES.iterdir() if path.is_file()}

    assert names <= globals().keys()


def test_ask(up):
    """README's five lines return the answer's text."""
    assert "You said: why five?" in recipe("ask").reply("why five?")


def test_glance(up):
    """Ask, stream, submit_many and cancel do in one place what the recipes say of them."""
    message, kinds, batch = recipe("glance").at_a_glance(REQUEST["messages"], [REQUEST] * 3)

    assert "hello" in message.content[0].text
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert all(result.message for result in batch.results(patience=IN_TIME_S))


def test_submit_and_fetch(up, dead_port):
    """A view submits at once, another one says that it is not there yet, then the answer, or why there is none."""
    up.api.control(latency=0.5)
    with django_site(ask="submit_and_fetch.submit", answers="submit_and_fetch.fetch") as site, served(site) as http:
        submitted = http.request("POST", "/ask", urlencode({"question": "and the capital?"}))
        task_id = submitted.json()["id"]
        early = http.request("GET", f"/answers/{task_id}")
        assert (submitted.status, early.status) == (202, 202)
        assert early.json()["state"] == "PENDING"

        result_of(up, task_id)
        answered = http.request("GET", f"/answers/{task_id}")
        assert answered.status == 200
        assert "and the capital?" in answered.json()["answer"]

        up.api.control(model_forbidden=True)
        refused = http.request("POST", "/ask", urlencode({"question": "x"})).json()["id"]
        wait_until(lambda: up.app.AsyncResult(refused).ready(), "the refusal", IN_TIME_S)
        failed = http.request("GET", f"/answers/{refused}")
        assert failed.status == 502
        assert "permission to use" in failed.json()["error"]
    with (
        without_worker(f"redis://127.0.0.1:{dead_port}/0"),
        django_site(answers="submit_and_fetch.fetch") as site,
        served(site) as http,
    ):
        away = http.request("GET", f"/answers/{task_id}")
        assert (away.status, away.headers["Retry-After"]) == (503, "5")
        assert away.json() == {"error": "BrokerUnreachable"}


def statuses(site: Any, path: str, body: Any) -> tuple[int, str | None, str]:
    """Return status, Retry-After and error of one request."""
    with served(site) as http:
        answer = http.request("POST", path, body)
        return answer.status, answer.headers.get("Retry-After"), answer.json().get("error", "")


def test_ask_flask(up, valkey, dead_port):
    """A question gets its answer in the same request, and each error its own status."""
    site = recipe("ask_flask").site
    with served(site) as http:
        answer = http.request("POST", "/ask", {"messages": REQUEST["messages"]})
        assert answer.status == 200
        assert "hello" in answer.json()["answer"]

    assert statuses(site, "/ask", {"messages": [{"role": "usr", "content": "x"}]}) == (400, None, "InvalidRequest")
    assert statuses(site, "/ask?lane=critcal", {"messages": REQUEST["messages"]}) == (400, None, "UnknownLane")
    up.api.control(spend_limit=True)
    assert statuses(site, "/ask", {"messages": REQUEST["messages"]}) == (502, None, "ApiError")
    up.api.control(spend_limit=False)
    with without_worker(valkey.url(13), deadline=0.3):
        assert statuses(site, "/ask", {"messages": REQUEST["messages"]}) == (504, None, "DeadlineExceeded")
    with without_worker(valkey.url(13), capacity=1, submit_wait=0.1):
        submit("critical", **REQUEST)
        assert statuses(site, "/ask", {"messages": REQUEST["messages"]}) == (503, "5", "LaneFull")
    with without_worker(f"redis://127.0.0.1:{dead_port}/0"):
        assert statuses(site, "/ask", {"messages": REQUEST["messages"]}) == (503, "5", "BrokerUnreachable")


def test_errors_django(up, valkey, caplog):
    """The middleware gives every view the same statuses, tells the log why, and leaves other errors alone."""
    middleware = ("errors_django.LanesErrors",)
    handler = recipe("errors_django").LanesErrors(None)
    assert handler.process_exception(None, ValueError()) is None
    with pytest.raises(UnknownBatch) as caught:
        Batch.load("nonsense")
    views = {"ask": "submit_and_fetch.submit", "events": "stream_django.events"}
    body = urlencode({"question": "x"})
    with django_site(middleware, **views) as site:
        assert handler.process_exception(RequestFactory().get("/batches/nonsense"), caught.value).status_code == 404
        assert "UnknownBatch: There is no batch 'nonsense'" in caplog.text
        with without_worker(valkey.url(13), capacity=1, submit_wait=0.1):
            submit("normal", **REQUEST)
            assert statuses(site, "/ask", body) == (503, "5", "LaneFull")
        with served(site) as http:
            refused = http.request("GET", "/events/some-job", Last_Event_ID="none of ours")
            assert (refused.status, refused.json()) == (400, {"error": "InvalidRequest"})
    assert "/ask: LaneFull: The lane normal is full" in caplog.text
    assert "/events/some-job: InvalidRequest: last_event_id" in caplog.text


def check_stream(up: Rig, http: Site, begun: Answer, path: str) -> None:
    """Read an answer piece by piece, lose the connection, and go on behind the last event."""
    assert begun.status == 202
    task_id = begun.json()["id"]
    first = http.request("GET", f"{path}/{task_id}")
    assert first.headers["Content-Type"].startswith("text/event-stream")
    events, at = [], []
    last = None
    for event_id, event in first.events():
        last = event_id
        events.append(event)
        at.append(time.monotonic())
        if len(events) == 8:
            break
    first.stream.close()
    assert at[-1] - at[2] > 2 / SLOWLY
    events += [event for _, event in http.request("GET", f"{path}/{task_id}", Last_Event_ID=str(last)).events()]

    assert events[-1]["type"] == "message_stop"
    assert text_of(events) == result_of(up, task_id)["content"][0]["text"]
    redis_client(up.app).delete(f"lanes:stream:{task_id}")
    (expired,) = http.request("GET", f"{path}/{task_id}").events()
    assert expired[1]["error"]["type"] == "StreamExpired"


def check_restart(up: Rig, http: Site, begun: Answer, path: str) -> None:
    """Read an answer whose first attempt breaks."""
    task_id = begun.json()["id"]
    events = []
    for _, event in http.request("GET", f"{path}/{task_id}").events():
        events.append(event)
        if event["type"] == "content_block_delta":
            up.api.control(drop_mid_stream_rate=0.0)

    kinds = [event["type"] for event in events]
    assert kinds.count("restart") == 1
    assert text_of(events[kinds.index("restart") :]) == result_of(up, task_id)["content"][0]["text"]


def test_stream_django(up):
    """The text comes while it is produced, a lost connection is taken up again, a broken attempt says restart."""
    up.api.control(tokens_per_second=SLOWLY)
    views = {"ask": "stream_django.begin", "answers": "stream_django.events"}
    form = urlencode({"question": "tell me"})
    with django_site(**views) as site, served(site) as http:
        check_stream(up, http, http.request("POST", "/ask", form), "/answers")
        up.api.control(drop_mid_stream_rate=1.0)
        check_restart(up, http, http.request("POST", "/ask", form), "/answers")


def test_stream_flask(up):
    """The text comes while it is produced, a lost connection is taken up again, a broken attempt says restart."""
    up.api.control(tokens_per_second=SLOWLY)
    question = {"question": "tell me"}
    with served(recipe("stream_flask").site) as http:
        check_stream(up, http, http.request("POST", "/answers", question), "/answers")
        up.api.control(drop_mid_stream_rate=1.0)
        check_restart(up, http, http.request("POST", "/answers", question), "/answers")


def asgi_request(site: Any) -> ApplicationCommunicator:
    """Return a POST of a question."""
    kind = (b"content-type", b"application/x-www-form-urlencoded")
    scope = {"type": "http", "method": "POST", "path": "/ask", "query_string": b"", "headers": [kind]}
    return ApplicationCommunicator(site, scope)


def test_stream_asgi(up):
    """The text comes while it is produced; who goes away in the middle ends the call."""
    up.api.control(tokens_per_second=SLOWLY)

    async def read(site: Any, most: int) -> list[str]:
        request, pieces = asgi_request(site), []
        await request.send_input({"type": "http.request", "body": b"question=tell+me"})
        assert (await request.receive_output(IN_TIME_S))["status"] == 200
        while len(pieces) < most:
            part = await request.receive_output(IN_TIME_S)
            pieces.append(part.get("body", b"").decode())
            if not part.get("more_body"):
                break
        else:
            await request.send_input({"type": "http.disconnect"})
        await request.wait(IN_TIME_S)
        return pieces

    with django_site(asgi=True, ask="stream_asgi.answer") as site:
        pieces = asyncio.run(read(site, 1_000))
        data = [json.loads(line[6:]) for line in "".join(pieces).splitlines() if line.startswith("data: ")]
        assert data[-1]["type"] == "message_stop"
        assert text_of(data).startswith("You said: tell me")
        assert not closed_by_us(up)
        asyncio.run(read(site, 5))
    wait_until(lambda: len(closed_by_us(up)) == 1, "the call has ended", IN_TIME_S)


def closed_by_us(up: Rig) -> list[dict[str, Any]]:
    """Return the calls whose connection was closed before the answer."""
    return [call for call in up.api.calls() if call["closed_by_client"]]


def test_cancel_button(up):
    """A running call is closed, a queued one is never made, and one that has ended cannot be cancelled."""
    up.api.control(latency=20.0)
    with served(recipe("cancel_button").site) as http:
        ids = [http.request("POST", "/reports").json()["id"] for _ in range(9)]
        wait_until(lambda: up.api.summary()["in_flight"] == 8, "all slots are busy", IN_TIME_S)
        for task_id in reversed(ids):
            assert http.request("DELETE", f"/reports/{task_id}").json() == {"state": "REVOKED"}
        wait_until(lambda: up.api.summary()["in_flight"] == 0, "no call goes on", in_time(2.0))
        assert [up.app.AsyncResult(task_id).state for task_id in ids] == ["REVOKED"] * 9
        again = http.request("DELETE", f"/reports/{ids[0]}")
        assert (again.status, again.json()) == (409, {"error": "it has ended already"})
    up.api.control(latency=0.0)
    assert "hello" in result_of(up, submit(**REQUEST).id)["content"][0]["text"]
    assert up.api.summary()["total"] == 9


def test_documents(up, valkey, tmp_path):
    """Bad lines are named, a collection that is killed goes on where it was, and each line has its answer once."""
    up.api.control(latency=0.1)
    lines = [json.dumps({"text": f"document {number}."}) for number in range(1, 121)]
    lines[2], lines[6] = "{broken", '{"txt": "typo"}'
    path, out = tmp_path / "documents.jsonl", tmp_path / "answers.jsonl"
    path.write_text("\n".join(lines))

    with pytest.raises(InvalidItem, match="Item 2"):
        recipe("documents").submit(path, on_invalid="stop")
    script, env = [sys.executable, str(RECIPES / "documents.py")], {**os.environ, **up.env}
    said = subprocess.run(
        [*script, "submit", str(path)], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    batch_id = said.stdout.split()[-1]
    assert cancel(f"{batch_id}-119")
    assert "line 3 was left out" in said.stdout
    assert "line 7 was left out" in said.stdout
    with subprocess.Popen([*script, "collect", batch_id, str(out)], env=env) as first:
        wait_until(lambda: out.exists() and out.read_text().count("\n") > 20, "some answers", IN_TIME_S)
        first.kill()
    recipe("documents").collect(batch_id, out)
    answers = {answer["line"]: answer for answer in map(json.loads, out.read_text().splitlines())}

    assert out.read_text().count("\n") == len(answers) == 118
    assert "document 1." in answers[1]["text"]
    assert [line for line, answer in answers.items() if not answer["ok"]] == [120]
    assert answers.keys() == set(range(1, 121)) - {3, 7}

    path.write_text("\n".join(lines[:1] * 10_000))
    with without_worker(valkey.url(13)):
        assert Batch.load(recipe("documents").submit(path)).counts().queued == 10_000


def asked_by(module: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """Return the messages of each call that a recipe is going to make."""
    asked: list[list[dict[str, Any]]] = []
    ask = module.ask

    def keep(*args: Any, **params: Any) -> Any:
        asked.append(list(params["messages"]))
        return ask(*args, **params)

    monkeypatch.setattr(module, "ask", keep)
    return asked


def test_what_it_costs(up, monkeypatch, capsys):
    """A batch is submitted if it may not cost too much, and its price is said before."""
    prices = {"*haiku*": Price.model_validate({"in": 1, "out": 5})}
    monkeypatch.setattr(up.app, "lanes_settings_given", replace(settings_of(up.app), prices=prices))
    documents = [f"document {number}. " * 30 for number in range(4)]

    assert recipe("what_it_costs").submit_for(documents, 0.001) is None
    batch = recipe("what_it_costs").submit_for(documents, 0.01)

    assert batch.counts().queued == 4
    assert all(result.message for result in batch.results(patience=IN_TIME_S))
    assert re.match(r"4 documents: \$0\.0\d+ now, \$0\.0\d+ in message batches", capsys.readouterr().out)


def test_thinking(up, monkeypatch):
    """The second turn carries the thought of the first with its signature, and the answer is the text."""
    asked = asked_by(recipe("thinking"), monkeypatch)
    text = recipe("thinking").two_turns("how much?", "and with tax?")

    assert "and with tax?" in text
    thought, answer = asked[1][1]["content"]
    assert (thought["type"], answer["type"]) == ("thinking", "text")
    assert thought["signature"]
    assert up.api.summary()["statuses"] == {"200": 2}


def test_tools(up, monkeypatch):
    """The tool's result goes back under the id of its use, and the last message is text."""
    asked = asked_by(recipe("tools"), monkeypatch)
    message = recipe("tools").answer("Weather in Ulm?", tool_choice={"type": "any"})

    assert message.content[0].type == "text"
    (use,), (result,) = asked[1][1]["content"], asked[1][2]["content"]
    assert result["tool_use_id"] == use["id"]
    assert json.loads(result["content"]) == {"city": use["input"]["city"], "degrees": 21}
    assert up.api.summary()["statuses"] == {"200": 2}


def test_images_and_documents(up, monkeypatch):
    """An upload reaches the API as base64 beside the question."""
    asked = asked_by(recipe("images_and_documents"), monkeypatch)
    with django_site(ask="images_and_documents.about_upload") as site, served(site) as http:
        for kind, block in (("application/pdf", "document"), ("image/png", "image")):
            boundary = "x-boundary"
            disposition = "Content-Disposition: form-data; name="
            parts = (
                f'{disposition}"file"; filename="a"\r\nContent-Type: {kind}\r\n\r\nsome bytes',
                f'{disposition}"question"\r\n\r\nwhat is it?',
            )
            body = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts) + f"--{boundary}--\r\n"
            answer = http.request("POST", "/ask", body, Content_Type=f"multipart/form-data; boundary={boundary}")
            assert "what is it?" in answer.json()["answer"]
            ((sent,),) = [message["content"][:1] for message in asked.pop()]
            assert sent["type"] == block
            assert base64.b64decode(sent["source"]["data"]) == b"some bytes"


def test_own_task(up):
    """Its own SDK call is admitted and settled by the shared budget; a failure sends it back to its lane."""
    up.api.control(server_error_rate=1.0)
    result = recipe("own_task").summarise.apply_async(args=["a long text"], queue="batch")
    wait_until(lambda: result.state == "RETRY", "a failed attempt", IN_TIME_S)
    up.api.control(server_error_rate=0.0)

    assert "Summarise" in result.get(timeout=IN_TIME_S)
    assert {call["key"] for call in up.api.calls()} == {"task"}
    assert [call["status"] for call in up.api.calls()][-2:] == [500, 200]
    redis = redis_client(up.app)
    assert redis.keys("lanes:budget:*haiku*")
    wait_until(lambda: not redis.keys("lanes:budget:*:calls"), "no call in flight", IN_TIME_S)


def test_timing(up):
    """A delayed job waits in the broker; within a lane priority 0 goes first and priority 9 last."""
    timing, redis = recipe("timing"), redis_client(up.app)
    begun = time.monotonic()
    later = timing.in_a_while(REQUEST, 1.0)
    wait_until(lambda: get_queue_stats(up.app)["lanes"]["normal"]["returning"] == 1, "it waits", IN_TIME_S)
    assert later.get(timeout=IN_TIME_S)["type"] == "message"
    assert time.monotonic() - begun > 0.9

    tonight = timing.tonight(REQUEST)
    ((_, due),) = redis.zrange("lanes:scheduled", 0, -1, withscores=True)
    assert 0 < due / 1_000 - time.time() <= 86_400 + 3_600
    # A countdown is counted from a moment that is some milliseconds before, or seconds on a busy machine.
    midnight = (
        datetime.fromtimestamp(due / 1_000 + 43_200).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    )
    assert abs(due / 1_000 - midnight.timestamp()) < IN_TIME_S
    assert cancel(tonight)
    wait_until(lambda: tonight.state == "REVOKED", "its end is told", IN_TIME_S)
    assert not redis.zcard("lanes:scheduled")

    up.api.control(latency=0.3)
    for each in range(8):
        submit("batch", **named(f"first {each}"))
    wait_until(lambda: up.api.summary()["in_flight"] == 8, "all slots are busy", IN_TIME_S)
    last = timing.after_the_other_documents(named("after"))
    for each in range(12):
        submit("batch", **named(f"between {each}"))
    timing.before_the_other_documents(named("before"))
    last.get(timeout=IN_TIME_S)
    order = [call["user_id"] for call in up.api.calls()][8 + 1 :]
    assert order.index("before") < 8
    assert order[-1] == "after"


def named(name: str) -> dict[str, Any]:
    """Return a request that the API's log shows under this name."""
    return {**REQUEST, "metadata": {"user_id": name}}


def test_workflows(up):
    """A chain hands its message to an ordinary task; a chord goes on as a call of its own, and fails with its parts."""
    workflows = recipe("workflows")

    published = workflows.write_and_publish("a press release").get(timeout=IN_TIME_S)
    assert published.startswith("published: You said: a press release")
    message = workflows.summarise_all(["one", "two", "three"]).get(timeout=IN_TIME_S)
    assert "One summary of" in message["content"][0]["text"]
    assert [call["key"] for call in up.api.calls()] == ["-all"] + ["atch"] * 3 + ["-all"]

    up.api.control(model_forbidden=True)
    failed = workflows.summarise_all(["one", "two"])
    failed.parent.get(timeout=IN_TIME_S, propagate=False)
    wait_until(lambda: failed.state == "FAILURE", "the chord fails", IN_TIME_S)
    assert isinstance(failed.result, ChordError)
    assert "permission to use" in str(failed.result)


def test_traces(up):
    """A job that is submitted within a span carries its trace, below the span of Celery's instrumentation."""
    code = """
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from celery_app import app, cancel
from celery_app.connections.redis_client import redis_client
from tasks import create_message
from traces import trace_to
params = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
trace_to(exporter := InMemorySpanExporter())
with trace.get_tracer("web").start_as_current_span("POST"):
    job = create_message.apply_async(kwargs=params, queue="batch", countdown=600)
text = redis_client(app).hget("lanes:texts", job.id).decode()
cancel(job)
trace.get_tracer_provider().force_flush()
sent, post = exporter.get_finished_spans()
parent = f"{post.context.trace_id:032x}-{sent.context.span_id:016x}"
print(sent.name, sent.parent.span_id == post.context.span_id, parent in text)
"""
    env = {**os.environ, **up.env}
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )

    assert said.stdout.split() == ["apply_async/tasks.create_message", "True", "True"], said.stderr


def test_own_celery_app(up):
    """The project's tasks stay in its own queue, and the lanes are there beside it."""
    code = """
from own_celery_app import app, send_mail
from celery_app import ask
sent = send_mail.delay("ada@example.org", "hello")
print(sent.get(timeout=30))
print(ask(model="m", max_tokens=9, messages=[{"role": "user", "content": "and you?"}]).content[0].text)
print(app.amqp.router.route({}, send_mail.name)["queue"].name)
"""
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **up.env},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    mail, answer, queue = said.stdout.splitlines()
    assert mail == "ada@example.org: hello"
    assert "and you?" in answer
    assert queue == "celery"


def test_flask_factory(up):
    """A view of an application out of a factory asks, and the lanes' settings come from its configuration."""
    code = """
from flask_factory import create_site
from celery_app.settings import settings_of
site = create_site()
print(site.test_client().get("/ask").text)
app = site.extensions["celery"]
kinds = [kind.__name__ for kind in type(app.tasks["tasks.create_message"]).__mro__]
print(settings_of(app).lane("batch").capacity, "FlaskTask" in kinds, "LaneTask" in kinds)
"""
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **up.env},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    answer, rest = said.stdout.splitlines()
    assert "Hello" in answer
    assert rest == "500 True True"


def test_lane_keys(up):
    """Each lane calls with its own key, and each model draws on its own limit."""
    for lane, key in (("critical", "-all"), ("normal", "-all"), ("batch", "atch")):
        submit(lane, **{**REQUEST, "model": "claude-haiku-4-5"}).get(timeout=IN_TIME_S)
        assert up.api.calls()[-1]["key"] == key
    submit("batch", **{**REQUEST, "model": "claude-opus-4-1"}).get(timeout=IN_TIME_S)
    budgets = [key.decode() for key in redis_client(up.app).keys("lanes:budget:*}")]

    assert sorted(name.rpartition(":")[2] for name in budgets) == ["*haiku*}", "*haiku*}", "*opus*}"]


def run_pytest(folder: Path) -> str:
    """Run a project's tests in a folder; return what pytest says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "EZAI_", "LANES_"))}
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(folder)],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(RECIPES), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return said.stdout + said.stderr


def test_testing_views(tmp_path):
    """With nothing running, a view is tested with an answer, a refusal, a full lane, and no answer in time."""
    (tmp_path / "test_views.py").write_text((RECIPES / "testing_views.py").read_text())
    said = run_pytest(tmp_path)
    assert "4 passed" in said, said


@pytest.mark.slow  # it starts all of `lanes up`
def test_testing_end_to_end(tmp_path):
    """The fixtures give a view's test a real stack, and an API that fails when it is told to."""
    (tmp_path / "conftest.py").write_text((RECIPES / "testing_end_to_end.py").read_text())
    (tmp_path / "test_views.py").write_text("""
from ask_flask import site

def asked():
    return site.test_client().post("/ask", json={"messages": [{"role": "user", "content": "hello"}]})

def test_answer(api):
    assert "hello" in asked().json["answer"]

def test_api_down(api):
    api(spend_limit=True)
    assert asked().status_code == 502
""")
    said = run_pytest(tmp_path)
    assert "2 passed" in said, said

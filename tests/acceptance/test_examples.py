import ast
import io
import json
import time
import tokenize
from pathlib import Path
from typing import Any

import pytest
from example_sites import EXAMPLES, IN_TIME_S, SERVERS, Site, web_process, whole_site
from kit.waiting import wait_until

#: In every text that these tests send; simulated answers repeat it.
SECRET = "zebrafish"  # noqa: S105 - the prompt is what has to stay secret
DOCUMENTS = "\n".join(json.dumps({"text": f"{SECRET} document {number}"}) for number in range(8))


#: Of Django's two servers `make test` runs one; its views are the same.
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name == "django-wsgi")) for name in SERVERS]


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    """Each of the three servers."""
    return str(request.param)


@pytest.fixture(scope="module")
def site(name, tmp_path_factory):
    """An example with its workers and a simulated API that answers quickly."""
    with whole_site(name, tmp_path_factory.mktemp(name)) as site:
        site.control(latency=0.1, jitter=0, tokens_per_second=40, output_tokens=30)
        yield site


def text_of(events: list[tuple[str, dict[str, Any], float]]) -> str:
    """Return the text of a stream's events."""
    return "".join(data["delta"]["text"] for _, data, _ in events if data["type"] == "content_block_delta")


def finished(site: Site, batch_id: str) -> dict[str, Any]:
    """Wait for a batch's end, and return what the page is told then."""
    deadline = time.monotonic() + IN_TIME_S
    while True:
        progress: dict[str, Any] = site.send("GET", f"/batches/{batch_id}").json
        if progress["answers"] is not None:
            return progress
        assert time.monotonic() < deadline, progress
        time.sleep(0.1)


def test_an_answer_comes_in_pieces_and_can_be_resumed(site):
    """Tokens arrive over time, each with an id behind which a second request goes on."""
    task_id = site.ask(f"{SECRET} in pieces").json["task_id"]
    events = list(site.events(task_id))
    came = [at for _, data, at in events if data["type"] == "content_block_delta"]
    assert len({round(at, 2) for at in came}) >= 10
    assert came[-1] - came[0] > 0.3
    assert text_of(events).startswith(f"You said: {SECRET} in pieces")
    assert events[-1][1]["type"] == "message_stop"
    middle = len(events) // 2
    rest = list(site.events(task_id, Last_Event_ID=events[middle][0]))
    assert [event[:2] for event in rest] == [event[:2] for event in events[middle + 1 :]]


def test_a_whole_answer_can_be_waited_for(site):
    """The request behind the conversation's title gets its answer in one piece."""
    messages = [{"role": "user", "content": f"{SECRET} title"}]
    assert f"{SECRET} title" in site.post("/ask", {"lane": "normal", "messages": messages}).json["text"]


def test_stop_ends_the_job_and_its_call(site):
    """DELETE closes the connection to the API, ends the stream with Cancelled and leaves the job REVOKED."""
    site.control(output_tokens=400)
    task_id = site.ask(f"{SECRET} stop").json["task_id"]
    closed_before = sum(bool(call["closed_by_client"]) for call in site.calls())
    stream = site.events(task_id)
    seen = [next(stream) for _ in range(8)]
    assert site.send("DELETE", f"/chat/{task_id}").json == {"cancelled": True}
    *_, (_, last, _) = stream
    site.control(output_tokens=30)
    assert last["error"]["type"] == "Cancelled"
    assert text_of(seen)
    wait_until(lambda: sum(bool(call["closed_by_client"]) for call in site.calls()) > closed_before, "it is closed", 5)
    assert site.state_of(task_id) == "REVOKED"


def test_a_reader_who_breaks_off_and_comes_back_has_lost_nothing(site):
    """A connection that breaks cancels nothing: the answer is there for the next one."""
    task_id = site.ask(f"{SECRET} break").json["task_id"]
    stream = site.events(task_id)
    first = [next(stream) for _ in range(6)]
    stream.close()
    rest = list(site.events(task_id, Last_Event_ID=first[-1][0]))
    assert rest[-1][1]["type"] == "message_stop"
    # The result is stored behind the stream's last event.
    wait_until(lambda: site.state_of(task_id) == "SUCCESS", "the job has succeeded", IN_TIME_S)


def test_a_bad_line_stops_a_batch_or_is_left_out(site):
    """A line that is no JSON is told by its number; nothing is queued, or all other lines, as the form says."""
    lines = f'{DOCUMENTS}\n\nno JSON\n{{"text": 5}}\n'
    refused = site.upload("a.jsonl", lines, lane="batch", on_invalid="stop")
    told = ["Line 10 is no JSON object with a text.", "Line 11 is no JSON object with a text."]
    assert (refused.status, refused.json["invalid"]) == (400, told)
    queued = site.upload("a.jsonl", lines, lane="batch", on_invalid="skip")
    assert (queued.status, queued.json["invalid"]) == (200, told)
    done = finished(site, queued.json["id"])
    assert (done["queued"], done["done"], done["invalid"]) == (8, 8, 2)
    assert {text.split("…")[0] for text in done["answers"].values()} == {
        f"You said: {SECRET} document {number}" for number in range(8)
    }


def test_a_batch_outlives_the_web_process_and_is_summed_up(site, name, tmp_path):
    """Another web process finds a batch by its id, and the project's own task sums its answers up in a lane."""
    batch_id = site.upload("a.txt", f"{SECRET} one\n{SECRET} two\n", lane="normal", on_invalid="stop").json["id"]
    with web_process(name, tmp_path, **site.told["environ"]) as other:
        assert len(finished(other, batch_id)["answers"]) == 2
        assert other.post(f"/batches/{batch_id}/summary").json["text"].startswith("You said: Sum these summaries up")


def test_a_batch_can_be_cancelled(site):
    """DELETE ends what has not ended: the batch is complete at once, most of it cancelled."""
    site.control(latency=20)
    batch_id = site.upload("a.txt", "\n".join(["x"] * 60), lane="batch", on_invalid="stop").json["id"]
    assert site.send("DELETE", f"/batches/{batch_id}").status == 200
    done = finished(site, batch_id)
    site.control(latency=0.1)
    assert (done["queued"], done["cancelled"], done["done"]) == (60, 60, 0)


def test_the_status_page_has_all_lanes(site):
    """Pages come, and behind the status page are the figures of every lane, most important first."""
    for page in ("/", "/batch", "/batch?id=x", "/status", "/static/chat.js", "/static/style.css"):
        assert site.send("GET", page).status == 200, page
    lanes = site.send("GET", "/stats").json["lanes"]
    assert list(lanes) == ["critical", "normal", "batch"]
    assert {"depth", "in_flight", "oldest_s", "wait_ms", "throughput_per_min"} <= set(lanes["critical"])


def test_what_a_reader_does_wrong_is_a_400(site):
    """A lane that does not exist, messages that are none, a body that is no object: 400 with the reason."""
    unknown = site.ask("x", lane="critcal")
    assert (unknown.status, "did you mean 'critical'" in unknown.json["error"]["message"]) == (400, True)
    assert site.upload("a.txt", "x", lane="bath", on_invalid="stop").status == 400
    role = site.post("/chat", {"lane": "critical", "messages": [{"role": "usr", "content": "x"}]})
    assert (role.status, "messages.0.role" in role.json["error"]["message"]) == (400, True)
    assert site.post("/chat", {"messages": []}).status == 400
    assert site.post("/chat", [1]).status == 400
    assert site.send("POST", "/chat", b"{", Content_Type="application/json").status == 400
    assert site.send("GET", "/batches/unknown").status == 400


def test_other_sites_and_other_hosts_are_refused(site):
    """A request that another site's page sends, and one for another host's name, do nothing."""
    body = json.dumps({"lane": "critical", "messages": [{"role": "user", "content": "x"}]}).encode()
    foreign = {"Content_Type": "application/json", "X_CSRFToken": "", "Sec_Fetch_Site": "cross-site"}
    assert site.send("POST", "/chat", body, **foreign).status == 403
    assert site.send("GET", "/", Host="evil.example").status == 400


def test_no_text_is_in_any_log(site):
    """Neither prompts nor answers are in the logs of web process, workers and API."""
    logs = {path.name: path.read_text() for path in Path(site.told["logs"]).glob("*.log")}
    assert {"command.log", "worker-critical.log", "worker-shared.log"} <= set(logs)
    assert "stream_message" in logs["worker-critical.log"] + logs["worker-shared.log"]
    assert [name for name, text in logs.items() if SECRET in text] == []


def test_a_full_lane_is_a_503_with_retry_after(name, broker_url, tmp_path):
    """When a lane has no room the reader is told to come again, by chat and by batch, and no half batch is left."""
    limits = {"LANES_CRITICAL_CAPACITY": "1", "LANES_BATCH_CAPACITY": "3"}
    waits = {"LANES_CRITICAL_SUBMIT_WAIT": "0.2", "LANES_BATCH_SUBMIT_WAIT": "0.2"}
    with web_process(name, tmp_path, CELERY_BROKER_URL=broker_url, **limits, **waits) as site:
        assert site.ask("x").status == 200
        for full in (site.ask("x"), site.upload("a.txt", "x\n" * 9, lane="batch", on_invalid="stop")):
            assert (full.status, full.headers["Retry-After"]) == (503, "5")
            assert full.json["error"]["type"] == "LaneFull"


def test_a_dead_broker_is_a_503_within_3_seconds(name, tmp_path, dead_port):
    """Every request says within 3 s that the queue is away, and not where it is."""
    with web_process(name, tmp_path, CELERY_BROKER_URL=f"redis://:hidden@127.0.0.1:{dead_port}/0") as site:
        for send in (
            lambda: site.ask("x"),
            lambda: site.upload("a.txt", "x", lane="batch", on_invalid="stop"),
            lambda: site.send("GET", "/stats"),
            lambda: site.send("DELETE", "/chat/some-id"),
        ):
            begun = time.monotonic()
            answer = send()
            assert (answer.status, answer.json["error"]["type"]) == (503, "BrokerUnreachable")
            assert time.monotonic() - begun < 3
            assert b"127.0.0.1" not in answer.body


@pytest.mark.parametrize("example", ["django_chat", "flask_chat"])
def test_an_example_is_under_150_lines(example):
    """All Python files of an example together have less than 150 lines of code."""
    sources = [path.read_text() for path in (EXAMPLES / example).rglob("*.py")]
    assert 50 < sum(map(lines_of_code, sources)) < 150


def lines_of_code(source: str) -> int:
    """Count the lines that are no comment, no docstring and not blank."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in skipped]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    strings = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
    docstrings = [node for node in strings if isinstance(node.value, ast.Constant)]
    return len(lines - {line for node in docstrings for line in range(node.lineno, (node.end_lineno or 0) + 1)})

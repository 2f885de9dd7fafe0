import json
import os
import shutil
import time
from typing import Any

import pytest
from example_sites import IN_TIME_S, Site, whole_site
from kit.waiting import wait_until

from demo.simulator.replies import filler

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: The API's pace: a token each 50 ms.
TOKENS_PER_SECOND = 20
LONG_ANSWER = 400
#: Documents in batch while somebody chats.
DOCUMENTS = 200


@pytest.fixture(scope="module", params=[pytest.param("django-asgi", marks=pytest.mark.slow), "flask"])
def site(request, tmp_path_factory):
    """An example of each framework, whose batch takes longer than the tests."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    pytest.importorskip("playwright", reason="Playwright is not installed: pip install playwright")
    with whole_site(request.param, tmp_path_factory.mktemp("site")) as site:
        site.control(latency=1.0, jitter=0.5, tokens_per_second=TOKENS_PER_SECOND, output_tokens=LONG_ANSWER)
        yield site


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, without a window."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    # Chromium's sandbox refuses to run as root, as CI does.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(site, browser):
    """A tab, in whose console no error may appear."""
    context = browser.new_context()
    context.set_default_timeout(IN_TIME_S * 1000)
    errors: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def batch(site):
    """200 documents in batch, queued and running; cancelled in the end."""
    batch_id = site.upload("a.txt", "document\n" * DOCUMENTS, lane="batch", on_invalid="stop").json["id"]
    yield batch_id
    site.send("DELETE", f"/batches/{batch_id}")


def ask(site: Site, page: Any, question: str) -> Any:
    """Ask on the chat page, and return the bubble of the answer once it has text."""
    page.goto(site.url)
    page.fill("#question", question)
    page.press("#question", "Enter")
    bubble = page.locator(".bubble.assistant")
    # Looked at from here: the page's Content-Security-Policy lets nobody evaluate a condition in it.
    wait_until(lambda: len(bubble.text_content()) > len(question) + 12, "the answer has begun", IN_TIME_S)
    return bubble


def call_of_stream(site: Site) -> dict[str, Any]:
    """Return the API's record of the last stream."""
    return [call for call in site.calls() if call["stream"]][-1]


def task_id_of(urls: list[str]) -> str:
    """Return the job whose stream the page has opened."""
    return next(url.rsplit("/", 1)[1] for url in urls if "/chat/" in url)


def lengths(bubble: Any, seconds: float) -> list[int]:
    """Look at a text again and again, and return how long it was."""
    seen, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen.append(len(bubble.text_content()))
        time.sleep(0.04)
    return seen


def test_tokens_appear_beside_a_batch_and_stop_stops(site, page, batch):
    """With 200 documents in batch the answer grows token by token; stop ends the text, the call and the job."""
    started: list[str] = []
    page.on("request", lambda request: started.append(request.url) if request.method == "GET" else None)
    bubble = ask(site, page, "tell me a long story")
    grown = lengths(bubble, 1.5)
    assert sorted(grown) == grown
    assert len(set(grown)) >= 10  # 30 tokens in this time
    assert site.send("GET", f"/batches/{batch}").json["done"] < DOCUMENTS
    page.click("#stop", force=True)  # it moves while the text grows
    page.wait_for_selector("#send:visible")
    text = bubble.text_content()
    assert len(set(lengths(bubble, 0.5))) == 1
    assert page.locator(".bubble.stopped").last.text_content() == "Stopped."
    assert text.startswith("You said: tell me a long story")
    wait_until(lambda: call_of_stream(site)["closed_by_client"] is not None, "the API sees the connection closed", 5)
    assert call_of_stream(site)["output_tokens"] < LONG_ANSWER
    wait_until(lambda: site.state_of(task_id_of(started)) == "REVOKED", "the job is revoked", 5)


def test_closing_the_tab_cancels(site, page):
    """A closed tab ends its job and the call to the API, although nobody has pressed stop."""
    started: list[str] = []
    page.on("request", lambda request: started.append(request.url) if request.method == "GET" else None)
    ask(site, page, "tell me another story")
    page.close(run_before_unload=True)
    wait_until(lambda: call_of_stream(site)["closed_by_client"] is not None, "the API sees the connection closed", 5)
    wait_until(lambda: site.state_of(task_id_of(started)) == "REVOKED", "the job is revoked", 5)


def test_a_reader_whose_connection_breaks_gets_the_rest(site, page):
    """The browser comes back behind the last event that it has seen, and the answer has no gap and no repetition."""
    site.control(output_tokens=60)
    broken = []

    def break_once(route: Any) -> None:
        """Let the first stream end after some events, as a connection does that is lost."""
        if broken:
            route.continue_()
            return
        broken.append(route.request.url)
        events = site.events(route.request.url.rsplit("/", 1)[1])
        first = [next(events) for _ in range(12)]
        body = "".join(f"id: {event_id}\ndata: {json.dumps(data)}\n\n" for event_id, data, _ in first)
        route.fulfill(body=f"retry: 100\n\n{body}", content_type="text/event-stream")

    page.route("**/chat/*-*", break_once)
    bubble = ask(site, page, "a story in two parts")
    page.wait_for_selector("#send:visible")
    site.control(output_tokens=LONG_ANSWER)
    assert bubble.text_content() == "You said: a story in two parts…" + "".join(filler(59))
    assert broken


def test_documents_go_through_the_page(site, page, tmp_path):
    """A bad line is shown by its number; without it the batch is done, also after a reload, and can be summed up."""
    site.control(latency=0.3, jitter=0, output_tokens=16)
    file = tmp_path / "documents.jsonl"
    file.write_text('{"text": "<b>one</b>"}\nno JSON\n{"text": "two"}\n')
    page.goto(f"{site.url}/batch")
    page.set_input_files("#file", file)
    page.click("#send")
    page.wait_for_selector("#problem li")
    assert page.locator("#problem li").all_text_contents() == ["Line 2 is no JSON object with a text."]
    page.select_option("#on_invalid", "skip")
    page.click("#send")
    page.wait_for_selector("#another:visible")
    page.reload()
    page.wait_for_selector("#answers li")
    assert page.locator("#state").text_content() == "Done."
    first, second = page.locator("#answers li").all_text_contents()
    assert (first[:20], second[:13]) == ("You said: <b>one</b>", "You said: two")
    page.click("#summarise")
    summary = page.locator("#summary")
    wait_until(lambda: summary.text_content().startswith("You said: Sum these"), "the answers are summed up", IN_TIME_S)


def test_the_status_page_shows_the_lanes(site, page, batch):
    """The status page counts what is queued in batch, and counts again."""
    page.goto(f"{site.url}/status")
    page.wait_for_selector("#lane-batch dd")
    assert page.locator(".lane h2").all_text_contents() == ["critical", "normal", "batch"]
    queued = page.locator("#lane-batch dd").first
    before = int(queued.text_content())
    assert 0 < before <= DOCUMENTS
    wait_until(lambda: int(queued.text_content()) < before, "the page counts again", IN_TIME_S)

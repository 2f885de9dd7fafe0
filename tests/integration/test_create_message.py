"""The task around the API call, as a web app meets it: a real worker, a real broker, HTTP."""

import time
from typing import Any

import pytest
from celery import Celery
from pydantic import SecretStr
from worker_process import worker

from celery_app import LANES, create_app
from celery_app.errors import ApiError, CallTimeout, DeadlineExceeded, InvalidRequest, NotAMessage
from celery_app.routing import DEADLINE_AT
from celery_app.settings import Settings
from demo.simulator import Behaviour, running
from tasks import create_message

#: Seconds that any job here may take; the slowest retries twice.
IN_TIME_S = 30.0

TEXT = "Rumpelstiltskin is the patient's name"


@pytest.fixture(scope="module")
def api():
    """A simulated API that answers at once."""
    with running(Behaviour(latency=0.0)) as server:
        yield server


@pytest.fixture(scope="module")
def broker(valkey):
    """A database of this module's own: its worker runs through all of its tests."""
    with valkey.client(5) as client:
        client.flushdb()
    return valkey.url(5)


@pytest.fixture(scope="module")
def shared_worker(broker, api, tmp_path_factory):
    """One worker for all lanes, with a call timeout that tests can wait for."""
    env = {"CELERY_BROKER_URL": broker, "EZAI_API_KEY": "sk-test-secret", "EZAI_BASE_URL": api.url}
    with worker(tmp_path_factory.mktemp("worker"), "-c", "8", LANES_NORMAL_CALL_TIMEOUT="1", **env) as started:
        yield started


@pytest.fixture
def app(broker, shared_worker, valkey):
    """The web app's side; the budget has forgotten what the test before did to the API."""
    with valkey.client(5) as client:
        for key in [*client.scan_iter("lanes:budget:*"), "lanes:gates"]:
            client.delete(key)
    keys = {lane.name: SecretStr("unused") for lane in LANES}
    made = create_app(Settings(broker_url=broker, result_backend=broker, api_keys=keys))
    yield made
    made.close()


def submit(app: Celery, queue: str = "critical", text: Any = TEXT, options: Any = None, **params: Any) -> Any:
    """Submit one call."""
    kwargs = {"model": "test-model", "max_tokens": 50, "messages": [{"role": "user", "content": text}], **params}
    return app.tasks[create_message.name].apply_async(kwargs=kwargs, queue=queue, **(options or {}))


def simulate(app: Celery, fault: str, queue: str = "critical") -> Any:
    """Submit a call that meets a fault at the API."""
    return submit(app, queue, metadata={"user_id": f"simulate:{fault}"})


def test_the_result_is_the_message_as_the_api_sent_it(app):
    """A caller gets plain JSON with the answer to its own question."""
    message = submit(app, text="What is the capital?").get(timeout=IN_TIME_S)

    assert message["type"] == "message"
    assert "What is the capital?" in message["content"][0]["text"]
    assert message["usage"]["output_tokens"] > 0


def test_a_parameter_the_sdk_does_not_know_reaches_the_api(app):
    """temperature is no argument of the SDK's method, but one of the API."""
    assert submit(app, temperature=0.2).get(timeout=IN_TIME_S)["type"] == "message"


def test_a_large_max_tokens_needs_no_stream(app):
    """The SDK would refuse it without a timeout; the lane's is given."""
    assert submit(app, max_tokens=60_000).get(timeout=IN_TIME_S)["type"] == "message"


def test_a_wrong_request_sent_by_name_fails_in_the_worker(app):
    """A producer that does not have the task's code gets the same answer, as the job's result."""
    result = app.send_task("tasks.create_message", kwargs={"model": "m"}, queue="critical")

    with pytest.raises(InvalidRequest, match="max_tokens"):
        result.get(timeout=IN_TIME_S)


def test_a_spend_limit_is_no_rate_limit(app, api):
    """A 429 that no waiting helps against fails at once."""
    api.clear()

    with pytest.raises(ApiError, match="429"):
        simulate(app, "spend_limit").get(timeout=IN_TIME_S)

    assert api.summary()["total"] == 1


def test_an_html_page_with_status_200_is_named_as_such(app):
    """A gateway's login page is no answer."""
    with pytest.raises(NotAMessage, match="text/html"):
        simulate(app, "html").get(timeout=IN_TIME_S)


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_call_ends_at_its_deadline_however_the_server_stalls(app, fault):
    """A server that answers a byte at a time cannot keep a slot: the whole call has one deadline."""
    end = time.monotonic() + IN_TIME_S
    result = simulate(app, fault, queue="normal")
    while not isinstance(result.info, CallTimeout):
        assert time.monotonic() < end, f"the first attempt is still running, {result.state}: {result.info}"
        time.sleep(0.02)

    result.revoke()


def test_a_job_whose_deadline_passed_in_the_queue_is_never_called(app, api):
    """Nobody pays for an answer that nobody waits for."""
    api.clear()
    result = submit(app, options={"headers": {DEADLINE_AT: time.time() - 1}})

    with pytest.raises(DeadlineExceeded, match="in the queue"):
        result.get(timeout=IN_TIME_S)

    assert api.summary()["total"] == 0

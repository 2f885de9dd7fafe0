"""Tenants take turns, and a job of a name is the only one."""

import time

import pytest
from kit.client_rig import IN_TIME_S, params, web_app
from kit.script_client import ScriptClient

from celery_app import create_app
from celery_app.budget.terms import write_terms, write_weights
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.errors import InvalidRequest
from celery_app.jobs.identity import LONGEST_KEPT
from celery_app.settings import Settings, settings_of
from tasks import create_message
from tests.conftest import close

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture
def app(broker_url):
    """A web app without any worker."""
    made = web_app(broker_url)
    yield made
    close(made)


@pytest.fixture
def client(app):
    """Its client."""
    return Client(app)


@pytest.fixture
def scripts(app):
    """A worker's scripts, which know the model's budget."""
    redis = redis_client(app)
    write_terms(redis, "", settings_of(app), [(lane.name, "m") for lane in settings_of(app).lanes])
    return ScriptClient(redis)


def served(scripts: ScriptClient, jobs: dict[str, str], number: int) -> list[str]:
    """Hand out so many jobs, one after the other, and return whose they were."""
    owners = []
    for _ in range(number):
        (held,) = scripts.claim()
        owners.append(jobs[held.name])
        scripts.ack(held)
    return owners


def submit_for(client: Client, tenant: str, number: int) -> dict[str, str]:
    """Submit so many jobs in batch, and return whose each is."""
    return {client.submit(lane="batch", tenant=tenant, **params(f"{n}")).id: tenant for n in range(number)}


def test_a_tenant_that_was_idle_has_saved_nothing_up(client, scripts):
    """Who comes late takes turns from then on; the turns that were not wanted are not made up for."""
    early = submit_for(client, "early", 40)
    served(scripts, early, 20)
    jobs = {**early, **submit_for(client, "late", 20)}

    assert served(scripts, jobs, 20).count("late") in {10, 11}


def test_weights_say_how_many_turns_a_tenant_gets(app, client, scripts):
    """Three to one, as the setting says, within one turn."""
    write_weights(redis_client(app), "", Settings(tenant_weights={"acme": 3}))
    jobs = {**submit_for(client, "acme", 60), **submit_for(client, "other", 60)}

    assert served(scripts, jobs, 40).count("acme") in {29, 30, 31}


@pytest.mark.parametrize("weight", ["0.001", "1000", "1e-300"])
def test_a_weight_of_any_size_leaves_the_others_their_turns(app, client, scripts, weight):
    """The lane's time goes on, and the tenants' turns are told apart by it."""
    redis_client(app).hset("lanes:weights", "acme", weight)
    jobs = {**submit_for(client, "acme", 3), **submit_for(client, "other", 3)}
    served(scripts, jobs, 6)
    jobs = {**submit_for(client, "one", 8), **submit_for(client, "two", 8)}

    assert served(scripts, jobs, 12).count("one") in {5, 6, 7}


@pytest.mark.parametrize("weight", ["0", "-1", "1e-300", "1e300", '"x"'])
def test_the_weights_are_a_setting(monkeypatch, weight):
    """``LANES_TENANT_WEIGHTS`` is JSON; nonsense is refused by name."""
    monkeypatch.setenv("LANES_TENANT_WEIGHTS", '{"acme": 3}')
    assert Settings.from_environment().tenant_weights == {"acme": 3}
    monkeypatch.setenv("LANES_TENANT_WEIGHTS", f'{{"acme": {weight}}}')
    with pytest.raises(Exception, match="LANES_TENANT_WEIGHTS"):
        Settings.from_environment()


def test_without_tenants_the_first_is_served_first(client, scripts):
    """Jobs of nobody in particular leave in the order in which they came."""
    names = [client.submit(lane="batch", **params(f"{n}")).id for n in range(20)]

    assert served(scripts, {name: name for name in names}, 20) == names


class TestUnique:
    """``unique=``: while such a job is queued or runs, the same handle comes back."""

    def test_a_name_is_queued_once(self, client, scripts):
        """Its first job's result comes back, while it is queued and while it runs; then the name is free."""
        first = client.submit(lane="batch", unique="invoice-17", **params())
        assert client.submit(lane="normal", unique="invoice-17", **params("other")).id == first.id
        (held,) = scripts.claim()
        assert client.submit(lane="batch", unique="invoice-17", **params()).id == first.id
        assert scripts.claim() == []
        scripts.ack(held)
        assert client.submit(lane="batch", unique="invoice-17", **params()).id != first.id

    def test_a_name_may_outlast_its_job(self, client, scripts):
        """For ``unique_for`` seconds after the job's end nothing is queued by its name."""
        first = client.submit(lane="batch", unique="x", unique_for=0.5, **params())
        (held,) = scripts.claim()
        scripts.ack(held)
        assert client.submit(lane="batch", unique="x", **params()).id == first.id
        deadline = time.monotonic() + IN_TIME_S
        while client.submit(lane="batch", unique="x", **params()).id == first.id and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(scripts.claim(4)) == 1

    def test_a_name_is_its_tasks(self, app, client):
        """Another task's job may have the same name, and another name another job."""
        first = client.submit(lane="batch", unique="x", **params())
        streamed = app.tasks["tasks.stream_message"].apply_async(kwargs=params(), queue="batch", unique="x")
        other = app.tasks[create_message.name].apply_async(kwargs=params(), queue="batch", unique="y")
        assert len({first.id, streamed.id, other.id}) == 3

    @pytest.mark.parametrize(("mine", "others"), [(("a", "x"), ("b", "x")), (("a", "1:b:x"), ("a:1", "b:x"))])
    def test_a_name_is_its_tenants(self, client, mine, others):
        """Another tenant's job of the same name is another: its handle would bring the answer along."""
        names = (*(dict(zip(("tenant", "unique"), each, strict=True)) for each in (mine, others)), {"unique": "x"})
        assert len({client.submit(lane="batch", **each, **params()).id for each in names}) == 3

    def test_a_foreign_name_ends_with_its_job(self, app, client, scripts):
        """A producer without our code may ask for it to last for ever, and gets a year."""
        app.send_task("some.task", queue="batch", headers={"lanes_unique": "x", "lanes_unique_for": 9e10})
        (held,) = scripts.claim()
        assert scripts.ack(held)
        (name,) = redis_client(client.app).keys("lanes:unique:*")
        assert 0 < redis_client(client.app).ttl(name) <= LONGEST_KEPT
        assert not redis_client(client.app).zcard("lanes:leases")

    def test_a_cancelled_job_leaves_its_name(self, app, client):
        """Its name is free once whoever waits has been told."""
        from tasks.ended import work_off

        first = client.submit(lane="batch", unique="x", **params())
        assert client.cancel(first)
        work_off(app)
        assert client.submit(lane="batch", unique="x", **params()).id != first.id

    def test_a_batch_leaves_out_what_there_is(self, client, scripts):
        """``submit_many`` takes a name for each item; what is left out is told, and no part of the batch."""
        first = client.submit(lane="batch", unique="1", **params())
        items = [params(f"{n}") for n in range(3)]
        batch = client.submit_many(items, unique=lambda item: item["messages"][0]["content"])

        assert batch.found == {1: first.id}
        assert batch.counts().queued == 2
        assert len(scripts.claim(4)) == 3

    @pytest.mark.parametrize(
        ("options", "path"),
        [
            ({"tenant": ""}, "tenant"),
            ({"tenant": "x" * 201}, "tenant"),
            ({"unique": 7}, "unique"),
            ({"unique_for": 3}, "unique_for"),
            ({"unique": "x", "unique_for": -1}, "unique_for"),
            ({"unique": "x", "unique_for": 1e17}, "unique_for"),
            ({"unique": "x", "unique_for": float("nan")}, "unique_for"),
        ],
    )
    def test_nonsense_is_refused_by_name(self, client, options, path):
        """Before anything is queued."""
        with pytest.raises(InvalidRequest) as caught:
            client.submit(lane="batch", **options, **params())
        assert caught.value.path == path


class TestExplain:
    """Why a job waits, by the code that decides."""

    def test_it_tells_place_and_shortage(self, broker_url):
        """Place in line, what the budget is short of, and about when."""
        app = create_app(Settings.from_environment(broker_url, broker_url))
        app.lanes_settings_given = settings_with_limit(broker_url)
        client, scripts = Client(app), ScriptClient(redis_client(app))
        write_terms(redis_client(app), "", settings_of(app), [("batch", "m")])
        redis_client(app).zadd("lanes:workers:batch", {"w": 2**52})
        jobs = [client.submit(lane="batch", **params(f"{n}")) for n in range(4)]
        while scripts.claim():
            pass
        told = client.explain(jobs[-1])

        assert (told["state"], told["lane"]) == ("queued", "batch")
        assert told["position"] == told["of"]
        assert "the budget of m: requests per minute" in str(told["waiting_for"])
        assert told["expected_s"] is not None
        assert 0 < told["expected_s"] < 60
        assert client.explain(jobs[0])["state"] == "running"
        close(app)

    def test_it_tells_of_a_second_message_of_an_id(self, app, client, scripts):
        """A task may replace itself, or be repeated with other arguments, while it runs: that one is found, too."""
        send = app.tasks[create_message.name].apply_async
        first = send(kwargs=params(), queue="batch", task_id="j")
        (held,) = scripts.claim()
        send(kwargs=params("other"), queue="batch", task_id="j")
        assert scripts.ack(held)
        assert client.explain(first)["state"] == "queued"
        assert client.cancel(first)
        assert scripts.claim() == []
        assert client.explain(first)["state"] == "ended"
        send(kwargs=params("again"), queue="batch", task_id="j")
        assert client.explain(first)["state"] == "queued"

    def test_it_tells_what_it_does_not_know(self, client):
        """A job without a worker, one that waits for its time, and one that nobody has submitted."""
        queued = client.submit(lane="batch", **params())
        later = client.app.tasks[create_message.name].apply_async(kwargs=params(), queue="batch", countdown=60)

        assert client.explain(queued)["waiting_for"] == "no worker serves batch"
        assert client.explain(queued)["expected_s"] is None
        assert "its time" in str(client.explain(later)["waiting_for"])
        assert client.explain("nobody")["state"] == "unknown"


def settings_with_limit(broker_url: str) -> Settings:
    """Return settings where six calls a minute are allowed."""
    from celery_app.settings import Limits

    return Settings(broker_url=broker_url, result_backend=broker_url, limits=Limits(rpm=60))

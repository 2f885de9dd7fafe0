"""Jobs that can wait go to the API's Message Batches, and end as they always do."""

import time

import pytest
from celery import chord
from celery.result import AsyncResult
from kit.client_rig import params
from kit.shipping_rig import SHIPPED_WITHIN, ShippingRig, shipping_rig, texts_of
from kit.waiting import wait_until

from celery_app import controls, errors, get_queue_stats
from celery_app.cli.why import _lanes
from celery_app.routing import DEADLINE_AT
from demo.simulator import Behaviour

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

DB = 9


@pytest.fixture
def up(valkey, tmp_path):
    """An API and a web app."""
    with shipping_rig(valkey, DB, tmp_path) as rig:
        yield rig


def submitted(rig: ShippingRig, *texts: str, **more: object) -> list[AsyncResult]:
    """Submit a job for each text."""
    return [rig.client.submit(lane="batch", **params(text, **more)) for text in texts]


def test_jobs_that_can_wait_are_answered_by_one_batch(up):
    """Of all that wait one batch is made, no call is live, and each job has its own answer as its result."""
    with up.worker():
        jobs = submitted(up, "one", "two", "three")
        many = up.client.submit_many([params(f"item {number}") for number in range(200)], lane="batch")
        assert texts_of(jobs) == ["You said: one", "You said: two", "You said: three"]
        results = sorted(many.results(patience=SHIPPED_WITHIN), key=lambda each: each.index)
        assert [each.message["content"][0]["text"].partition("…")[0] for each in results] == [
            f"You said: item {number}" for number in range(200)
        ]
        up.wait_until_over()
        assert up.live() == 0
        assert sum(batch["request_counts"]["succeeded"] for batch in up.batches()) == 203
        assert len(up.batches()) <= 3
        assert not up.redis.keys("lanes:shipment:*") + up.redis.keys("lanes:answers") + up.redis.keys("lanes:shipped")


@pytest.mark.slow
def test_other_lanes_and_calls_that_batches_do_not_take_are_live(up):
    """Betas, headers, short deadlines, streams and lanes that ship nothing make calls at once."""
    with up.worker():
        live = [
            up.client.submit(lane="normal", **params("normal")),
            up.client.submit(lane="batch", **params("beta"), betas=["some-beta-2026-01-01"]),
            up.client.submit(lane="batch", **params("header"), extra_headers={"x-own": "1"}),
        ]
        assert texts_of(live) == ["You said: normal", "You said: beta", "You said: header"]
        assert up.live() == len(live)
        assert up.batches() == []


def test_a_refused_request_fails_and_an_errored_one_goes_live(up):
    """An invalid request fails as its call would have; what has failed otherwise is answered by a call."""
    with up.worker():
        refused = up.client.submit(lane="batch", **params("refused", fault="400"))
        up.api.control(batch_errors=1)
        (errored,) = submitted(up, "errored")
        with pytest.raises(errors.ApiError, match="400 invalid_request_error: Simulated 400"):
            refused.get(timeout=SHIPPED_WITHIN)
        assert texts_of([errored]) == ["You said: errored"]
        up.wait_until_over()
        assert up.live() == 1


@pytest.mark.slow
def test_a_chord_of_shipped_jobs_ends_with_its_callback(up):
    """Its header is answered by a batch, and its callback runs, which goes live: it is in another lane."""
    task = up.app.tasks["tasks.create_message"]
    with up.worker():
        header = [task.si(**params(f"part {number}")).set(queue="batch") for number in range(3)]
        whole = chord(header, task.si(**params("whole")).set(queue="normal"), app=up.app).apply_async()
        assert texts_of([whole]) == ["You said: whole"]
        assert up.live() == 1
        assert sum(batch["request_counts"]["succeeded"] for batch in up.batches()) == len(header)


@pytest.mark.slow
def test_a_shipped_job_is_seen_and_can_be_purged(up):
    """`lanes status`, `lanes why` and `explain` say where it is; `celery purge` drops it, and ends its batch."""
    up.api.control(endless_batch=1)
    with up.worker():
        (job,) = submitted(up, "seen")
        wait_until(lambda: up.client.explain(job)["state"] == "scheduled", "it waits to be shipped")
        assert "a batch of the API's; it goes live in" in str(up.client.explain(job)["waiting_for"])
        up.wait_for_batches()
        assert up.client.explain(job)["state"] == "shipped"
        lane = get_queue_stats(up.app)["lanes"]["batch"]
        assert (lane["shipped"], lane["depth"], lane["returning"]) == (1, 0, 0)
        (reason,) = _lanes(up.app, ["batch"], "lanes")["batch"]["waiting_for"]
        assert (reason["kind"], reason["words"]) == ("shipped", "batches of the API's, 1 of its jobs")
        with up.app.connection_for_write() as connection:
            assert connection.default_channel.queue_purge("batch") == 1
        wait_until(lambda: up.batches()[0]["cancel_initiated_at"], "its batch is cancelled", SHIPPED_WITHIN)
        up.wait_until_over()


@pytest.mark.slow
def test_a_paused_model_is_not_shipped(up):
    """Jobs of another one are, meanwhile; those of the paused one go once somebody resumes it."""
    controls.pause(up.app, "batch", model="paused*", new=True)
    with up.worker():
        (paused,) = submitted(up, "paused", model="paused-1")
        assert texts_of(submitted(up, "other", model="other-1")) == ["You said: other"]
        assert len(up.batches()) == 1
        controls.resume(up.app, "batch", model="paused*")
        assert texts_of([paused]) == ["You said: paused"]
        assert up.live() == 0


@pytest.mark.slow
def test_a_shipped_job_is_charged_half_of_a_call(up):
    """With prices it is written down once what it has cost, and what was saved by it is as much."""
    with up.worker(EZAI_PRICES='{"*": {"in": 1, "out": 5}}'):
        assert texts_of(submitted(up, "charged")) == ["You said: charged"]
        up.wait_until_over()
        wait_until(lambda: up.redis.hget("lanes:metrics:totals", "batch:landed") == b"1", "it is counted")
    due, saved = (int(up.redis.hget("lanes:metrics:totals", f"batch:{name}") or 0) for name in ("usd", "usd_saved"))
    assert due == saved > 0


@pytest.mark.slow
def test_what_expires_goes_live(valkey, tmp_path):
    """Half of a batch that expires is answered, the other half is called for; no question is answered twice."""
    with shipping_rig(valkey, DB, tmp_path, Behaviour(expiring_batch=1, time_scale=20_000)) as rig, rig.worker():
        jobs = submitted(rig, *[f"job {number}" for number in range(10)])
        assert texts_of(jobs) == [f"You said: job {number}" for number in range(10)]
        rig.wait_until_over()
        assert rig.live() == 5


@pytest.mark.slow
def test_a_batch_that_takes_too_long_is_cancelled(valkey, tmp_path):
    """After `promote_after` what is not answered goes live, and what is answered is not asked again."""
    behaviour = Behaviour(endless_batch=1)
    with shipping_rig(valkey, DB, tmp_path, behaviour) as rig, rig.worker(LANES_BATCH_PROMOTE_AFTER="4"):
        jobs = submitted(rig, *[f"job {number}" for number in range(10)])
        assert texts_of(jobs) == [f"You said: job {number}" for number in range(10)]
        rig.wait_until_over()
        assert rig.live() == 5


@pytest.mark.slow
def test_a_batch_whose_jobs_are_due_is_cancelled(valkey, tmp_path):
    """Some time before the first deadline what is not answered goes live."""
    behaviour = Behaviour(endless_batch=1)
    env = {"LANES_BATCH_PROMOTE_BEFORE": "3695", "LANES_BATCH_DEADLINE": "3705"}
    with shipping_rig(valkey, DB, tmp_path, behaviour) as rig, rig.worker(**env):
        task, headers = rig.app.tasks["tasks.create_message"], {DEADLINE_AT: time.time() + 3_705}
        job = task.apply_async(kwargs=params("due"), queue="batch", headers=headers)
        assert texts_of([job]) == ["You said: due"]
        rig.wait_until_over()
        assert rig.batches()[0]["cancel_initiated_at"]


@pytest.mark.slow
def test_a_shipped_job_can_be_cancelled(valkey, tmp_path):
    """It ends at once; a batch of which nobody wants anything any more is cancelled, too."""
    with shipping_rig(valkey, DB, tmp_path, Behaviour(endless_batch=1)) as rig, rig.worker():
        (job,) = submitted(rig, "unwanted")
        rig.wait_for_batches()
        wait_until(lambda: rig.redis.zcard("lanes:shipped"), "it is shipped")
        assert rig.client.cancel(job)
        wait_until(lambda: job.state == "REVOKED", "it is revoked")
        wait_until(lambda: rig.batches()[0]["cancel_initiated_at"], "its batch is cancelled")
        rig.wait_until_over()
        assert rig.live() == 0

"""A cap on money with real prices: a warning at four fifths, and then a stop."""

import json

from kit.client_rig import params, rig
from kit.waiting import wait_until

from celery_app import controls, create_app
from celery_app.client import Client
from celery_app.configuration.prices import Price
from celery_app.metrics.spent import spent_by_day
from celery_app.metrics.stats import get_queue_stats
from celery_app.settings import Settings

#: Dollars for a million tokens of output; each answer has 100, and may have no more.
PRICES, PER_CALL = {"*": {"in": 0, "out": 10}}, 0.001


def test_a_cap_warns_and_stops_and_goes_on_when_it_is_raised(valkey, tmp_path):
    """Of ten calls of a lane that may cost as much as five, five are made; the others once somebody raises it."""
    env = {"EZAI_PRICES": json.dumps(PRICES), "LANES_BATCH_USD_PER_DAY": str(5 * PER_CALL)}
    with rig(valkey, 14, tmp_path, slots=1, **env) as up:
        up.api.control(output_tokens=100)
        url, price = up.env["CELERY_BROKER_URL"], Price.model_validate(PRICES["*"])
        web = create_app(Settings(broker_url=url, result_backend=url, prices={"*": price}))
        batch = Client(web).submit_many([params(f"item {n}", max_tokens=100) for n in range(10)])
        wait_until(lambda: "usd cap" in str(get_queue_stats(up.app)["lanes"]["batch"]["waiting_for"]), "the cap holds")
        wait_until(lambda: spent_by_day(up.app)[0].total.calls == 5, "what was on its way is settled")
        assert up.api.summary()["total"] == 5
        assert spent_by_day(up.app)[0].total == (5, 5 * PER_CALL, 0)
        assert up.worker.output().count("of its cap of") == 1
        controls.set_limits(up.app, {"usd_per_day": 1}, lane="batch")
        assert all(result.message for result in batch.results(patience=30))
        assert batch.counts().usd == 10 * PER_CALL

"""Which calls go to the API's batches, and what comes back from them."""

import inspect
import json
from typing import Any

import pytest
from anthropic import Anthropic
from kit.client_rig import params

from celery_app.broker.shipments import Shipment
from celery_app.budget.shippable import BESIDE, shipping_lanes
from celery_app.configuration.given import from_environment
from celery_app.settings import Settings
from tasks.request import REFUSED
from tasks.shipping.answers import answer_in
from tasks.shipping.requests import custom_id, number_of

MESSAGE = {"type": "message", "content": [{"type": "text", "text": "yes"}]}
REFUSAL = {"type": "error", "error": {"type": "invalid_request_error", "message": "messages: too many"}}


def settings(**env: str) -> Settings:
    """Return what is set."""
    return Settings.from_given(from_environment(env))


@pytest.mark.parametrize(
    ("word", "patterns"),
    [("on", ("*",)), ("off", ()), ("*haiku*, *sonnet*", ("*haiku*", "*sonnet*")), ("", ())],
)
def test_a_lane_ships_all_models_none_or_those_of_patterns(word, patterns):
    """The setting is a word, or patterns with commas between; without it no lane ships."""
    lanes = {lane.name: lane for lane in settings(LANES_BATCH_MESSAGE_BATCHES=word).lanes}
    assert lanes["batch"].message_batches == patterns
    assert lanes["normal"].message_batches == ()


def test_what_batches_do_not_take_goes_live():
    """What is said beside the body, a fast model, and a model that no pattern names."""
    some = settings(LANES_BATCH_MESSAGE_BATCHES="m*", LANES_NORMAL_MESSAGE_BATCHES="on")
    assert shipping_lanes(some, params()) == "normal batch"
    assert shipping_lanes(some, params(model="other")) == "normal"
    for name in BESIDE:
        assert shipping_lanes(some, params(**{name: {"a": "b"}})) == ""
    assert shipping_lanes(some, params(speed="fast")) == ""
    assert shipping_lanes(settings(), params()) == ""


def test_each_parameter_of_the_sdk_is_in_the_body_or_known_to_be_beside_it(monkeypatch):
    """What the SDK sends as a header, in the query or not at all would be an unknown field of a batch's request."""
    sent = dict[str, Any]()
    messages = Anthropic(api_key="unused").messages
    monkeypatch.setattr(messages, "_post", lambda _, **said: sent.update(said))
    names = {*inspect.signature(messages.create).parameters} - {*REFUSED, "extra_headers", "extra_query", "extra_body"}
    messages.create(**dict.fromkeys(names, "x"), extra_body={"extra": 1}, timeout=1.0)
    assert {*names} - {*sent["body"]} == {*BESIDE} - {"extra_headers", "extra_query", "betas"}


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        ({"type": "succeeded", "message": MESSAGE}, MESSAGE),
        ({"type": "errored", "error": REFUSAL}, REFUSAL),
        ({"type": "errored", "error": REFUSAL["error"]}, REFUSAL),
        ({"type": "errored", "error": {"type": "error", "error": {"type": "api_error", "message": "?"}}}, None),
        (
            {
                "type": "errored",
                "error": {
                    "type": "error",
                    "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to go on"},
                },
            },
            None,
        ),
        ({"type": "expired"}, None),
        ({"type": "canceled"}, None),
        ({"type": "succeeded", "message": "<html>"}, None),
        ("nonsense", None),
    ],
)
def test_a_job_is_run_with_a_message_or_a_refusal_and_goes_live_otherwise(result, answer):
    """What is the account's fault, or nobody's, is for a call to find out."""
    found = answer_in({"custom_id": "x-1", "result": result})
    assert (json.loads(found) if found else None) == answer


def test_the_id_of_a_request_leads_to_its_job_alone():
    """Ids of other shipments, and of other programs, are of no job."""
    shipment, other = Shipment("5f" * 10, "m", 0), Shipment("6f" * 10, "m", 0)
    own = custom_id(shipment, 99_999)
    assert number_of(shipment, own) == 99_999
    assert len(own) <= 64
    for foreign in (custom_id(other, 1), "99999", f"{shipment.id}-", f"{shipment.id}-x", f"{shipment.id}-1-2", None, 7):
        assert number_of(shipment, foreign) is None

"""What calls cost, by the prices that an operator writes down."""

import json
import os
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from celery_app.budget import Cost, Usage
from celery_app.budget.days import days_around
from celery_app.budget.prices import in_batch, most_usd, price_of, priced, used_usd
from celery_app.errors import InvalidSettings
from celery_app.settings import Settings

PRICES = {
    "*opus*+fast": {"in": 30, "out": 150},
    "*opus*": {"in": 5, "out": 25},
    "*haiku*": {"in": 0.8, "out": 4, "cache_write": 1, "cache_read": 0.08, "batch_discount": 0.4},
    "*": {"in": 0.0003, "out": 0.0007},
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Start each test without any variable of ours."""
    for name in list(os.environ):
        if name.startswith(("EZAI_", "LANES_", "CELERY_")):
            monkeypatch.delenv(name)


def settings_with(monkeypatch, prices=PRICES) -> Settings:
    """Return settings with prices, given as a variable."""
    monkeypatch.setenv("EZAI_PRICES", prices if isinstance(prices, str) else json.dumps(prices))
    return Settings.from_environment()


def price(monkeypatch, model):
    """Return the price of a model."""
    found = price_of(settings_with(monkeypatch), model)
    assert found is not None
    return found


def test_without_prices_nothing_costs_anything():
    """Where EZAI_PRICES is not set, a cost is the very object that it was."""
    settings, cost = Settings.from_environment(), Cost(characters=400)
    assert price_of(settings, "claude-opus-4-6") is None
    assert priced(settings, "claude-opus-4-6", cost) is cost


@pytest.mark.parametrize(
    ("model", "dollars"),
    [("claude-opus-4-6", 5), ("claude-opus-4-6+fast", 30), ("claude-haiku-3-5+fast", 0.8), ("gpt", 0.0003)],
)
def test_the_first_pattern_that_fits_has_the_price(monkeypatch, model, dollars):
    """A variant has the price of a pattern that names it, and its model's where none does."""
    assert price(monkeypatch, model).input == dollars


def test_a_price_that_no_pattern_gives_is_not_known(monkeypatch):
    """A model that no pattern fits has no price, and not that of another."""
    assert price_of(settings_with(monkeypatch, {"*opus*": {"in": 5, "out": 25}}), "claude-haiku-3-5") is None


def test_cache_prices_follow_from_the_input_price(monkeypatch):
    """What an operator leaves out is as the API has it: 1.25, 2 and 0.1 times the price of input."""
    found = price(monkeypatch, "claude-opus-4-6")
    assert (found.cache_write, found.cache_write_1h, found.cache_read) == (6.25, 10.0, 0.5)
    assert price(monkeypatch, "claude-haiku-3-5").cache_write_1h == 1.6


def test_a_call_costs_its_tokens_by_their_kind(monkeypatch):
    """Plain input, both kinds of cache writes, cache reads and output are each billed at their price."""
    message = {
        "usage": {
            "input_tokens": 100,
            "output_tokens": 10,
            "cache_creation_input_tokens": 1_000,
            "cache_creation": {"ephemeral_5m_input_tokens": 600, "ephemeral_1h_input_tokens": 400},
            "cache_read_input_tokens": 20_000,
        }
    }
    usage = Usage.of(message)
    assert usage is not None
    expected = 100 * 5_000 + 10 * 25_000 + 600 * 6_250 + 400 * 10_000 + 20_000 * 500
    assert used_usd(price(monkeypatch, "claude-opus-4-6"), usage) == expected


def test_a_sum_is_rounded_once(monkeypatch):
    """Prices of fractions of a nanodollar per token do not vanish token by token."""
    assert used_usd(price(monkeypatch, "gpt"), Usage(1_000, 1_000)) == 1_000
    assert used_usd(price(monkeypatch, "gpt"), Usage(1, 0)) == 0


def test_a_message_batch_is_billed_at_its_discount(monkeypatch):
    """Half price by default, otherwise what the operator's discount leaves."""
    assert in_batch(price(monkeypatch, "claude-opus-4-6"), 1_001) == 500
    assert in_batch(price(monkeypatch, "claude-haiku-3-5"), 1_000) == 600


def test_the_api_says_itself_that_a_call_was_part_of_a_batch():
    """The service tier of its usage does."""
    usage = {"input_tokens": 1, "output_tokens": 1, "service_tier": "batch"}
    assert Usage.of({"usage": usage}) == Usage(1, 1, in_batch=True)


@pytest.mark.parametrize(
    ("cost", "tokens"),
    [
        (Cost(input_tokens=100, output_tokens=7), (100, 7)),
        (Cost(characters=1_000, max_tokens=2_000), (300, 2_000)),
        (Cost(), (0, 500)),
        (Cost(requests=0), (0, 0)),
    ],
)
def test_an_estimate_supposes_as_long_an_answer_as_there_can_be(monkeypatch, cost, tokens):
    """`max_tokens` is paid for until the answer says how long it was; 500 tokens where nothing bounds it."""
    assert most_usd(price(monkeypatch, "claude-opus-4-6"), cost) == tokens[0] * 5_000 + tokens[1] * 25_000


def test_an_estimate_supposes_that_what_may_be_cached_is_written(monkeypatch):
    """A prompt with `cache_control` may cost more than its input tokens."""
    cost = Cost(input_tokens=100, output_tokens=0, cached=True)
    assert most_usd(price(monkeypatch, "claude-opus-4-6"), cost) == 100 * 6_250


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ("{", "is not valid JSON"),
        ('["*opus*"]', "valid dictionary"),
        ({"*": {"in": 1}}, "EZAI_PRICES at *.out"),
        ({"*": {"in": -1, "out": 1}}, "EZAI_PRICES at *.in"),
        ({"*": {"in": "cheap", "out": 1}}, "EZAI_PRICES at *.in"),
        ({"*": {"in": 1, "out": 1, "cach_read": 1}}, "EZAI_PRICES at *.cach_read"),
        ({"*": {"in": 1, "out": 1, "batch_discount": 50}}, "EZAI_PRICES at *.batch_discount"),
        ({"*": {"in": 1e6, "out": 1}}, "EZAI_PRICES at *.in"),
    ],
)
def test_a_wrong_price_is_named_by_its_place(monkeypatch, prices, words):
    """Whoever misspells a price learns which, of which pattern."""
    with pytest.raises(InvalidSettings) as caught:
        settings_with(monkeypatch, prices)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["Europe/Atlantis", "", "/etc", "Europe"])
def test_a_time_zone_that_there_is_not_is_refused(monkeypatch, name):
    """LANES_TIME_ZONE is a name of the tz database; empty is not set, as with every variable."""
    monkeypatch.setenv("LANES_TIME_ZONE", name)
    if not name:
        assert Settings.from_environment().time_zone == "UTC"
        return
    with pytest.raises(InvalidSettings, match="LANES_TIME_ZONE: no time zone is called"):
        Settings.from_environment()


@pytest.mark.parametrize("url", ["http://hooks.example.com/secret-1", "ftp://localhost/secret-1", "secret-1"])
def test_a_webhook_is_encrypted_or_on_this_machine(monkeypatch, url):
    """What is spent goes over no wire in the clear; and the error shows nothing of the address."""
    monkeypatch.setenv("EZAI_USD_WEBHOOK", url)
    with pytest.raises(InvalidSettings, match="EZAI_USD_WEBHOOK: has to begin with https") as caught:
        Settings.from_environment()
    assert "secret-1" not in str(caught.value)


@pytest.mark.parametrize("between", [" ", "\t", "\n", "\x7f", "\u2028"])
def test_a_webhook_has_no_blanks_and_control_characters(monkeypatch, between):
    """No request can be made of such an address; the error shows nothing of it."""
    monkeypatch.setenv("EZAI_USD_WEBHOOK", f"https://hooks.example.com/secret{between}1")
    with pytest.raises(InvalidSettings, match=r"EZAI_USD_WEBHOOK: .* without blanks and control characters") as caught:
        Settings.from_environment()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://hooks.example.com/x", "http://localhost:9/x", "http://127.0.0.1/x"])
def test_a_webhook_that_nobody_overhears_is_taken(monkeypatch, url):
    """HTTPS anywhere, and HTTP on loopback."""
    monkeypatch.setenv("EZAI_USD_WEBHOOK", url)
    found = Settings.from_environment().usd_webhook
    assert found is not None
    assert found.get_secret_value() == url
    assert url not in repr(Settings.from_environment())


def _day_of(zone: str, at: datetime) -> str:
    """Return the date that a script takes at a moment."""
    begun = [name for start, name in days_around(zone, at.timestamp()) if start <= at.timestamp()]
    return begun[-1]


def test_a_day_begins_at_midnight_of_its_zone_across_summer_time():
    """In Berlin 29 March 2026 has 23 hours and 25 October has 25; each day's border is its own midnight."""
    berlin = "Europe/Berlin"
    for month, day, hours in ((3, 29, 23), (10, 25, 25)):
        noon = datetime(2026, month, day, 12, tzinfo=ZoneInfo(berlin))
        starts = {name: start for start, name in days_around(berlin, noon.timestamp())}
        assert starts[f"2026-{month:02}-{day + 1}"] - starts[f"2026-{month:02}-{day}"] == hours * 3_600
    assert _day_of("Europe/Berlin", datetime(2026, 3, 28, 22, 59, 59, tzinfo=UTC)) == "2026-03-28"
    assert _day_of("Europe/Berlin", datetime(2026, 3, 28, 23, 0, tzinfo=UTC)) == "2026-03-29"
    assert _day_of("Europe/Berlin", datetime(2026, 3, 29, 21, 59, 59, tzinfo=UTC)) == "2026-03-29"
    assert _day_of("Europe/Berlin", datetime(2026, 3, 29, 22, 0, tzinfo=UTC)) == "2026-03-30"


def test_a_day_without_a_midnight_begins_with_its_first_moment():
    """In Cairo the clocks of 24 April 2026 go from 23:59:59 to 01:00."""
    assert _day_of("Africa/Cairo", datetime(2026, 4, 23, 21, 59, 59, tzinfo=UTC)) == "2026-04-23"
    assert _day_of("Africa/Cairo", datetime(2026, 4, 23, 22, 0, tzinfo=UTC)) == "2026-04-24"

from __future__ import annotations

from datetime import datetime

import pytest

from demo.simulator.accounts import Account, Accounts
from demo.simulator.headers import ratelimit_headers
from demo.simulator.limits import Limits, pattern_of

HAIKU = "claude-haiku-4-5"
OPUS = "claude-opus-4-5"


def test_a_named_pattern_comes_before_the_default() -> None:
    """The default applies to what no other pattern names, wherever it stands in the table."""
    table = {"*": Limits(rpm=1), "*haiku*": Limits(rpm=2)}
    assert pattern_of(HAIKU, table) == "*haiku*"
    assert pattern_of(OPUS, table) == "*"


def test_models_of_one_pattern_share_one_account() -> None:
    """Limits belong to a family of models, as at Anthropic, and to one key."""
    accounts = Accounts({"claude-haiku-*": Limits(rpm=60)})
    account = accounts.find("key", "claude-haiku-4-5", 0)
    assert accounts.find("key", "claude-haiku-3", 0) is account
    assert accounts.find("key", OPUS, 0) is not account
    assert accounts.find("other key", "claude-haiku-3", 0) is not account


def test_a_denied_call_costs_nothing() -> None:
    """What a bucket lacks is not taken from the others."""
    account = Account(Limits(rpm=60, burst=2, itpm=60, token_burst=10), 0)
    assert account.admit(10, 0) is None
    denial = account.admit(5, 0)
    assert denial is not None
    assert denial.limit == "input tokens per minute"
    assert denial.wait == pytest.approx(5)
    assert account.requests is not None
    assert account.requests.remaining(0) == pytest.approx(1)


def test_the_longest_wait_is_told() -> None:
    """When several limits are used up, the call has to wait for the slowest of them."""
    account = Account(Limits(rpm=60, itpm=6, token_burst=10), 0)
    account.admit(1, 0)
    denial = account.admit(1, 0)
    assert denial is not None
    assert denial.limit == "input tokens per minute"
    assert denial.wait == pytest.approx(10)


def test_output_counts_as_it_is_produced() -> None:
    """A call is admitted whatever it may produce; what it did produce holds up the next."""
    account = Account(Limits(otpm=600, token_burst=1), 0)
    assert account.admit(1, 0) is None
    account.produce(30, 0)
    denial = account.admit(1, 0)
    assert denial is not None
    assert denial.wait == pytest.approx(2.1)


def test_calls_in_flight_are_limited() -> None:
    """A call above the number allowed at the same time is denied, and nobody knows for how long."""
    account = Account(Limits(in_flight=1), 0)
    account.in_flight = 1
    denial = account.admit(1, 0)
    assert denial is not None
    assert denial.limit == "concurrent connections"


def test_a_changed_table_reaches_open_accounts() -> None:
    """New limits hold for keys that have called before, and a limit that is lifted is lifted."""
    accounts = Accounts({"*": Limits(rpm=60)})
    account = accounts.find("key", HAIKU, 0)
    account.admit(1, 0)
    assert account.admit(1, 0) is not None
    accounts.reshape({"*": Limits()}, 0)
    assert accounts.find("key", HAIKU, 0).admit(1, 0) is None


def test_headers_tell_what_is_left() -> None:
    """Requests are told exactly, tokens to the nearest thousand, and `tokens` is the tightest of both kinds."""
    account = Account(Limits(rpm=600, itpm=240_000, otpm=80_000), 0)
    account.admit(20_400, 0)
    headers = dict(ratelimit_headers(account, 0, wall=1_000_000_000))
    told = {name.removeprefix("anthropic-ratelimit-"): value for name, value in headers.items()}
    assert told["requests-remaining"] == "9"
    assert told["input-tokens-remaining"] == "40000"
    assert told["output-tokens-remaining"] == "20000"
    assert told["tokens-limit"] == told["input-tokens-limit"] == "240000"


def test_reset_is_the_time_of_full_replenishment() -> None:
    """`reset` is not when the next call passes, but when nothing of the limit is used any more."""
    account = Account(Limits(rpm=60, burst=10), 0)
    for _ in range(4):
        account.admit(1, 0)
    reset = dict(ratelimit_headers(account, 0, wall=1_000_000_000))["anthropic-ratelimit-requests-reset"]
    assert datetime.fromisoformat(reset).timestamp() == 1_000_000_004


def test_without_limits_there_are_no_headers() -> None:
    """An account without limits has nothing to tell."""
    assert not list(ratelimit_headers(Account(Limits(), 0), 0, wall=0))


@pytest.mark.parametrize("wrong", [{"rpm": 0}, {"itpm": -1}, {"in_flight": 0}, {"burst": -1}, {"otpm": float("nan")}])
def test_limits_that_admit_nothing_are_refused(wrong: dict[str, float]) -> None:
    """A limit under which no call could ever pass is a mistake, and it is named."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)

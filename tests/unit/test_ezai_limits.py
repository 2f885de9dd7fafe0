from datetime import datetime

import pytest

from demo.simulator import ApiLimits, Behaviour, Simulator
from demo.simulator.limits import Account, Bucket, pattern_of, ratelimit_headers
from demo.simulator.prompts import PREFIXES, PromptCache, PromptUsage

HAIKU = "claude-haiku-4-5"
OPUS = "claude-opus-4-5"


def test_a_bucket_starts_full_and_refills_steadily_up_to_its_capacity():
    """It holds its burst in seconds of its rate; half of a unit's time brings half of a unit."""
    bucket = Bucket(limit=60, burst=5, now=0)
    assert bucket.level == pytest.approx(5)
    bucket.take(5, 0)
    bucket.take(0, 0.5)
    assert bucket.level == pytest.approx(0.5)
    bucket.take(0, 1_000)
    assert bucket.level == pytest.approx(5)


def test_a_small_bucket_still_holds_one():
    """However low the rate, one unit can be saved up, or nothing would ever pass."""
    assert Bucket(limit=6, burst=1, now=0).level == 1


def test_the_wait_is_exact():
    """After exactly the wait that was told, the cost is there, and shortly before it is not."""
    bucket = Bucket(limit=60, burst=4, now=0)
    bucket.take(4, 0)
    wait = bucket.wait(3, 0)
    assert bucket.wait(3, wait - 0.01) > 0
    assert bucket.wait(3, wait) == pytest.approx(0)


def test_an_oversized_cost_needs_a_full_bucket_and_is_owed():
    """A cost above the capacity passes when the bucket is full, and later ones wait until it is paid."""
    bucket = Bucket(limit=60, burst=10, now=0)
    assert bucket.wait(25, 0) == 0
    bucket.take(25, 0)
    assert bucket.wait(1, 0) == pytest.approx(16)


def test_another_limit_keeps_the_level():
    """A limit changed while running neither refills nor empties the bucket, but what does not fit is gone."""
    bucket = Bucket(limit=600, burst=1, now=0)
    bucket.take(4, 0)
    bucket.resize(limit=1_200, burst=1, now=0)
    assert bucket.level == pytest.approx(6)
    bucket.resize(limit=120, burst=1, now=0)
    assert bucket.level == pytest.approx(2)


def test_a_named_pattern_comes_before_the_default():
    """The default applies to what no other pattern names, wherever it stands in the table."""
    table = {"*": ApiLimits(rpm=1), "*haiku*": ApiLimits(rpm=2)}
    assert pattern_of(HAIKU, table) == "*haiku*"
    assert pattern_of(OPUS, table) == "*"


def test_models_of_one_pattern_share_one_account():
    """Limits belong to a family of models, as at Anthropic, and to one key."""
    simulator = Simulator(Behaviour(), {"claude-haiku-*": ApiLimits(rpm=60)})
    account = simulator.account("key", "claude-haiku-4-5")
    assert simulator.account("key", "claude-haiku-3") is account
    assert simulator.account("key", OPUS) is not account
    assert simulator.account("other key", "claude-haiku-3") is not account


def test_a_denied_call_costs_nothing():
    """What a bucket lacks is not taken from the others."""
    account = Account(ApiLimits(rpm=120, itpm=40), 0)
    assert account.admit(10, 0) is None
    denial = account.admit(5, 0)
    assert denial is not None
    assert denial.limit == "input tokens per minute"
    assert denial.wait == pytest.approx(7.5)
    assert account.buckets["requests"].level == pytest.approx(1)


def test_the_longest_wait_is_told():
    """When several limits are used up, the call has to wait for the slowest of them."""
    account = Account(ApiLimits(rpm=60, itpm=4), 0)
    account.admit(1, 0)
    denial = account.admit(1, 0)
    assert denial is not None
    assert denial.limit == "input tokens per minute"
    assert denial.wait == pytest.approx(15)


def test_output_counts_as_it_is_produced():
    """A call is admitted whatever it may produce; what it did produce holds up the next."""
    account = Account(ApiLimits(otpm=40), 0)
    assert account.admit(1, 0) is None
    account.produce(12, 0)
    denial = account.admit(1, 0)
    assert denial is not None
    assert denial.wait == pytest.approx(4.5)


def test_calls_in_flight_are_limited():
    """A call above the number allowed at the same time is denied, and nobody knows for how long."""
    account = Account(ApiLimits(in_flight=1), 0)
    account.in_flight = 1
    assert account.admit(1, 0) == ("concurrent connections", 0.0)


def test_changed_limits_reach_open_accounts():
    """New limits hold for keys that have called before, and a limit that is lifted is lifted."""
    simulator = Simulator(Behaviour(), ApiLimits(rpm=60))
    account = simulator.account("key", HAIKU)
    account.admit(1, 0)
    assert account.admit(1, 0) is not None
    simulator.change({"rpm": None})
    assert simulator.account("key", HAIKU).admit(1, 0) is None


def test_headers_tell_what_is_left():
    """Requests are told exactly, tokens to the nearest thousand, and `tokens` is the tightest of both kinds."""
    account = Account(ApiLimits(rpm=600, itpm=240_000, otpm=80_000), 0)
    account.admit(20_400, 0)
    headers = ratelimit_headers(account, 0, wall=1_000_000_000)
    told = {name.removeprefix("anthropic-ratelimit-"): value for name, value in headers.items()}
    assert told["requests-remaining"] == "9"
    assert told["input-tokens-remaining"] == "40000"
    assert told["output-tokens-remaining"] == "20000"
    assert told["tokens-limit"] == told["input-tokens-limit"] == "240000"
    # Not when the next call passes, but when nothing of the limit is used any more.
    assert datetime.fromisoformat(told["input-tokens-reset"]).timestamp() == 1_000_000_006


def test_without_limits_there_are_no_headers():
    """An account without limits has nothing to tell."""
    assert ratelimit_headers(Account(ApiLimits(rpm=0), 0), 0, wall=0) == {}


SYSTEM = {"type": "text", "text": "r" * 4_000, "cache_control": {"type": "ephemeral"}}


def params(question: object, **more: object) -> dict[str, object]:
    """Give a request that asks one question."""
    return {"model": "m", "messages": [{"role": "user", "content": question}], **more}


def measured(request: dict[str, object]) -> PromptUsage:
    """Measure a request that nobody has sent before."""
    return PromptCache().measure(request)[0]


def test_four_characters_are_a_token():
    """A prompt's tokens are its characters over four, of system and messages together, rounded up; no call is free."""
    assert measured(params("x" * 401, system="y" * 400)).input_tokens == 201
    assert measured(params("")).input_tokens == 1


def test_every_kind_of_block_weighs_something():
    """Text counts its characters, wherever it is nested; media count a fixed number; unknown blocks their JSON."""
    blocks = [
        {"type": "text", "text": "x" * 400},
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x" * 400}]},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x" * 400_000}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x" * 400}},
        {"type": "novelty", "words": "x" * 400},
    ]
    weights = [measured(params([block])).input_tokens for block in blocks]
    assert weights[:5] == [100, 100, 1_590, 3_000, 100]
    assert 100 < weights[5] < 120


def test_a_prefix_is_written_once_and_then_read():
    """A call that is denied caches nothing; one that passes does, and the next reads it and pays for the rest only."""
    cache = PromptCache()
    first, second = params("hello, you", system=[SYSTEM]), params("something else", system=[SYSTEM])
    assert cache.measure(first)[0] == cache.measure(first)[0] == (3, 1_000, 0)
    cache.remember(cache.measure(first)[1])
    assert cache.measure(second)[0] == (4, 0, 1_000)
    assert cache.measure(second)[0].counted == 4
    assert cache.measure(second | {"model": "n"})[0].cache_read_input_tokens == 0


def test_a_longer_prefix_reads_what_is_known_of_it():
    """A conversation that grows reads the part that was cached, and creates the rest up to its breakpoint."""
    cache = PromptCache()
    cache.remember(cache.measure(params("hello", system=[SYSTEM]))[1])
    turn = {"type": "text", "text": "x" * 400, "cache_control": {"type": "ephemeral"}}
    assert cache.measure(params([turn], system=[SYSTEM]))[0] == (0, 100, 1_000)


def test_the_cache_is_bounded():
    """The oldest prefixes are forgotten: a long benchmark does not eat the memory."""
    cache = PromptCache()
    for number in range(PREFIXES + 1):
        cache.remember([str(number).encode()])
    assert len(cache._known) == PREFIXES

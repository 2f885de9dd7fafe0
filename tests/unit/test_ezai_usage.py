from __future__ import annotations

from demo.simulator.usage import PREFIXES, PromptCache, uncached

SYSTEM = {"type": "text", "text": "r" * 4_000, "cache_control": {"type": "ephemeral"}}


def params(question: str, **more: object) -> dict[str, object]:
    """Give a request that asks one question."""
    return {"model": "m", "messages": [{"role": "user", "content": question}], **more}


def test_four_characters_are_a_token() -> None:
    """A prompt's tokens are its characters over four, of system and messages together, rounded up."""
    assert uncached(params("x" * 401, system="y" * 400)).input_tokens == 201


def test_an_empty_prompt_has_a_token() -> None:
    """No call is free."""
    assert uncached(params("")).input_tokens == 1


def test_every_kind_of_block_weighs_something() -> None:
    """Text counts its characters, wherever it is nested; media count a fixed number; unknown blocks their JSON."""
    blocks = [
        {"type": "text", "text": "x" * 400},
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x" * 400}]},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x" * 400_000}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x" * 400}},
        {"type": "novelty", "words": "x" * 400},
    ]
    weights = [uncached({"messages": [{"role": "user", "content": [block]}]}).input_tokens for block in blocks]
    assert weights[:2] == [100, 100]
    assert weights[2:5] == [1_590, 3_000, 100]
    assert 100 < weights[5] < 120


def test_a_prefix_is_written_once_and_then_read() -> None:
    """The first call creates the cached prefix, the second reads it, and only the rest counts as input."""
    cache = PromptCache()
    first, second = params("hello, you", system=[SYSTEM]), params("something else", system=[SYSTEM])
    assert cache.measure(first) == (3, 1_000, 0)
    cache.write(first)
    assert cache.measure(second) == (4, 0, 1_000)
    assert cache.measure(second).counted == 4


def test_a_denied_call_writes_nothing() -> None:
    """Measuring a prompt does not cache it: a call that gets 429 has to pay for creation later."""
    cache = PromptCache()
    prompt = params("hello", system=[SYSTEM])
    assert cache.measure(prompt) == cache.measure(prompt)


def test_a_longer_prefix_reads_what_is_known_of_it() -> None:
    """A conversation that grows reads the part that was cached, and creates the rest up to its breakpoint."""
    cache = PromptCache()
    cache.write(params("hello", system=[SYSTEM]))
    turn = {"type": "text", "text": "x" * 400, "cache_control": {"type": "ephemeral"}}
    longer = {"model": "m", "system": [SYSTEM], "messages": [{"role": "user", "content": [turn]}]}
    assert cache.measure(longer) == (0, 100, 1_000)


def test_another_model_has_another_cache() -> None:
    """What one model has cached, another cannot read."""
    cache = PromptCache()
    cache.write(params("hello", system=[SYSTEM]))
    assert cache.measure(params("hello", system=[SYSTEM]) | {"model": "n"}).cache_read_input_tokens == 0


def test_the_cache_is_bounded() -> None:
    """The oldest prefixes are forgotten: a long benchmark does not eat the memory."""
    cache = PromptCache()
    for number in range(PREFIXES + 1):
        cache.write(params("hello", system=[{**SYSTEM, "text": str(number)}]))
    assert cache.measure(params("hello", system=[{**SYSTEM, "text": "0"}])).cache_read_input_tokens == 0
    assert cache.measure(params("hello", system=[{**SYSTEM, "text": "1"}])).cache_read_input_tokens == 1

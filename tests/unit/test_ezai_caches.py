import pytest

from demo.simulator.caches import PromptCache, PromptUsage
from demo.simulator.faults import SimulatedError

MARK = {"cache_control": {"type": "ephemeral"}}
HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def text(tokens: int, letter: str = "r", **mark: object) -> dict[str, object]:
    """Give a block of text of so many tokens."""
    return {"type": "text", "text": letter * 4 * tokens, **mark}


SYSTEM = text(2_000, **MARK)


def params(question: object, **more: object) -> dict[str, object]:
    """Give a request that asks one question."""
    return {"model": "m", "messages": [{"role": "user", "content": question}], **more}


class Key:
    """One key's cache, at a time that the test tells."""

    def __init__(self) -> None:
        """Start cold."""
        self.cache = PromptCache(lambda seconds: seconds)

    def ask(self, request: dict[str, object], now: float = 0.0) -> PromptUsage:
        """Answer a request at once."""
        measured = self.cache.measure(request, now)
        self.cache.remember(measured.kept, now)
        return measured.usage


def measured(request: dict[str, object]) -> PromptUsage:
    """Measure a request that nobody has sent before."""
    return Key().ask(request)


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


def test_a_longer_prefix_reads_what_is_known_of_it():
    """A conversation that grows reads the part that was cached, and creates the rest up to its breakpoint."""
    key = Key()
    key.ask(params("hello", system=[SYSTEM]))
    turn = text(100, "x", **MARK)
    assert key.ask(params([turn, text(5)], system=[SYSTEM])) == PromptUsage(5, 100, 2_000)
    assert key.ask(params([turn, text(5)], system=[SYSTEM])) == PromptUsage(5, 0, 2_100)


def test_a_conversation_whose_mark_moves_on_reads_what_came_before_it():
    """What was cached up to 20 blocks before a breakpoint is found from there, and not what was 21 before."""
    for further, read in ((19, 2_000), (20, 0)):
        key = Key()
        key.ask(params([SYSTEM]))
        blocks = [text(2_000), *(text(1, str(number)) for number in range(further))]
        blocks[-1] |= MARK
        assert key.ask(params(blocks)).cache_read_input_tokens == read


def test_a_prefix_lives_five_minutes_from_its_last_read():
    """A read makes it live as long again; after that it is written anew."""
    key, request = Key(), params("hello", system=[SYSTEM])
    reads = [key.ask(request, now).cache_read_input_tokens for now in (0, 299, 597, 898, 899)]
    assert reads == [0, 2_000, 2_000, 0, 2_000]


def test_a_prefix_may_live_an_hour():
    """It does so even if it is read by a request that asks for five minutes; its tokens are told apart."""
    key, hour, short = Key(), params("hello", system=[text(2_000, **HOUR)]), params("hello", system=[SYSTEM])
    assert key.ask(hour).hour_tokens == 2_000
    reads = [key.ask(short, now).cache_read_input_tokens for now in (3_599, 7_198, 10_799)]
    assert reads == [2_000, 2_000, 0]
    both = params([text(1_000, "x", **MARK)], system=[text(2_000, **HOUR)])
    told = key.ask(both, 100_000).reported()
    assert told["cache_creation_input_tokens"] == 3_000
    assert told["cache_creation"] == {"ephemeral_5m_input_tokens": 1_000, "ephemeral_1h_input_tokens": 2_000}


def test_a_short_prefix_is_not_cached():
    """Less than 1,024 tokens are input like any other."""
    key = Key()
    for tokens, created in ((1_023, 0), (1_024, 1_024)):
        usage = key.ask(params("four", system=[text(tokens, **MARK)]))
        assert usage == PromptUsage(1 + tokens - created, created, 0)


def test_a_request_can_ask_for_its_last_block():
    """A request's own cache_control is one of its last block."""
    assert measured(params([text(2_000)], **MARK)) == PromptUsage(0, 2_000)


@pytest.mark.parametrize("blocks", [[text(1, **MARK)] * 5, [{**text(1), "cache_control": {"ttl": "2h"}}]])
def test_what_cannot_be_cached_is_refused(blocks):
    """More than 4 breakpoints, and a lifetime that there is not, are refused."""
    with pytest.raises((SimulatedError, LookupError)):
        measured(params(blocks))


def test_the_order_is_tools_system_messages():
    """A tool that differs makes all behind it differ."""
    key = Key()
    key.ask(params("hello", tools=[{"name": "a"}], system=[SYSTEM]))
    assert key.ask(params("hello", tools=[{"name": "b"}], system=[SYSTEM])).cache_read_input_tokens == 0
    assert key.ask(params("other", tools=[{"name": "a"}], system=[SYSTEM])).cache_read_input_tokens > 2_000

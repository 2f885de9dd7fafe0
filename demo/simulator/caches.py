"""PromptCache: the prompt prefixes that one key has had cached, and how many tokens of a prompt are read from them."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from demo.simulator.faults import SimulatedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Json = dict[str, Any]

CHARS_PER_TOKEN = 4  # Anthropic's rule of thumb for English text
# An image of 1092 x 1092 pixels (platform.claude.com, vision: width x height / 750).
IMAGE_CHARS = 1_590 * CHARS_PER_TOKEN
# A page of PDF is "1,500 to 3,000 tokens"; the simulator does not open the file.
DOCUMENT_CHARS = 3_000 * CHARS_PER_TOKEN
PREFIXES = 10_000  # remembered per key; a benchmark uses a handful
# All of platform.claude.com, prompt caching: the least that is cached (of most models), how long it is kept, how
# many breakpoints a prompt may have, and how many blocks before one are looked at for what was cached earlier.
MIN_CACHED_TOKENS = 1_024
LIFETIMES_S = {"5m": 300.0, "1h": 3_600.0}
MAX_BREAKPOINTS = 4
LOOKBACK_BLOCKS = 20


class PromptUsage(NamedTuple):
    """Tokens of a prompt, as `usage` reports them."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    hour_tokens: int = 0  # of those created, which are kept for an hour

    @property
    def counted(self) -> int:
        """Those that count against the limit: all but cache reads."""
        return self.input_tokens + self.cache_creation_input_tokens

    def reported(self) -> Json:
        """Give the fields of `usage`."""
        fields: Json = self._asdict()
        hour = fields.pop("hour_tokens")
        minutes = self.cache_creation_input_tokens - hour
        return {**fields, "cache_creation": {"ephemeral_5m_input_tokens": minutes, "ephemeral_1h_input_tokens": hour}}


class Prefix(NamedTuple):
    """The beginning of a prompt up to one of its blocks."""

    digest: bytes
    chars: int
    lifetime: float  # seconds of the API's time; 0 when it is not to be cached


class Measured(NamedTuple):
    """What is known of a prompt when it arrives."""

    usage: PromptUsage
    kept: list[Prefix]  # that will be in the cache once its answer has begun
    digest: bytes  # of the whole prompt: it is the same for the same question


class PromptCache:
    """The prefixes that one key has sent with `cache_control`."""

    def __init__(self, lasts: Callable[[float], float]) -> None:
        """Start empty; `lasts` gives how many seconds some seconds of the API's time are."""
        self._lasts = lasts
        self._known: dict[bytes, tuple[float, float]] = {}  # until when, and its lifetime

    def measure(self, params: Json, now: float) -> Measured:
        """Measure a prompt: a read up to the longest known prefix, a creation from there to its last breakpoint.

        Raises:
            SimulatedError: with more breakpoints than there may be, or a lifetime that there is not.
        """
        prefixes = _prefixes(params)
        points = [number for number, prefix in enumerate(prefixes) if prefix.lifetime]
        if len(points) > MAX_BREAKPOINTS:
            text = f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {len(points)}."
            raise SimulatedError(400, text)
        near = {number for point in points for number in range(max(0, point + 1 - LOOKBACK_BLOCKS), point + 1)}
        found = [prefixes[n] for n in sorted(near) if self._known.get(prefixes[n].digest, (0.0,))[0] > now]
        made = [prefixes[n] for n in points if _tokens(prefixes[n].chars) >= MIN_CACHED_TOKENS]
        read = found[-1].chars if found else 0
        cached, hour = read, 0
        for prefix in made:
            if prefix.chars > cached:
                hour += prefix.chars - cached if prefix.lifetime == LIFETIMES_S["1h"] else 0
                cached = prefix.chars
        total = prefixes[-1].chars if prefixes else 0
        usage = PromptUsage(*map(_tokens, (total - cached, cached - read, read, hour)))
        digest = prefixes[-1].digest if prefixes else b""
        return Measured(usage if any(usage) else PromptUsage(1), found[-1:] + made, digest)

    def remember(self, kept: list[Prefix], now: float) -> None:
        """Keep the prefixes of a prompt whose answer begins now; those that were read live as long again."""
        for prefix in kept:
            until, lifetime = self._known.pop(prefix.digest, (0.0, 0.0))
            lifetime = max(lifetime if until > now else 0.0, prefix.lifetime)
            self._known[prefix.digest] = (max(until, now + self._lasts(lifetime)), lifetime)
        while len(self._known) > PREFIXES:
            del self._known[next(iter(self._known))]


def _prefixes(params: Json) -> list[Prefix]:
    """Give the prefixes that end with each block of a prompt."""
    digest, total, prefixes = blake2b(params["model"].encode(), digest_size=16), 0, []
    for block in _blocks(params):
        total += _weight(block)
        digest.update(json.dumps({**block, "cache_control": None}, sort_keys=True).encode())
        prefixes.append(Prefix(digest.digest(), total, _lifetime(block)))
    if prefixes and not prefixes[-1].lifetime:
        # The request's own is one for its last block.
        prefixes[-1] = prefixes[-1]._replace(lifetime=_lifetime(params))
    return prefixes


def _lifetime(block: Json) -> float:
    control = block.get("cache_control")
    return LIFETIMES_S[control.get("ttl") or "5m"] if control else 0.0


def _blocks(params: Json) -> Iterator[Json]:
    """Give the blocks of a prompt in the order in which they are cached: tools, system, messages."""
    yield from params.get("tools") or ()
    for content in (params.get("system") or "", *(message["content"] for message in params["messages"])):
        if content:
            yield from [{"type": "text", "text": content}] if isinstance(content, str) else content


def _weight(block: Json) -> int:
    match block:
        case {"type": "text", "text": str(text)} | {"type": "document", "source": {"type": "text", "data": str(text)}}:
            return len(text)
        case {"type": "image"}:
            return IMAGE_CHARS
        case {"type": "document"}:
            return DOCUMENT_CHARS
        case {"type": "tool_result", "content": list(parts)}:
            return sum(map(_weight, parts))
    return len(json.dumps(block))


def _tokens(chars: int) -> int:
    return -(-chars // CHARS_PER_TOKEN)

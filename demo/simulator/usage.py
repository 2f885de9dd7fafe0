"""Usage: how many tokens a call has, and which of its prompt was cached."""

from __future__ import annotations

import json
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# Anthropic's rule of thumb for English text.
CHARS_PER_TOKEN = 4
# An image of 1092 x 1092 pixels (platform.claude.com, vision: width x height / 750).
IMAGE_CHARS = 1_590 * CHARS_PER_TOKEN
# A page of PDF is "1,500 to 3,000 tokens"; the simulator does not open the file.
DOCUMENT_CHARS = 3_000 * CHARS_PER_TOKEN
# Cached prefixes remembered per key; a benchmark uses a handful.
PREFIXES = 10_000

Json = dict[str, Any]


class Usage(NamedTuple):
    """Tokens of a prompt, as `usage` reports them."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0

    @property
    def counted(self) -> int:
        """Input tokens that count against the limit: all but cache reads."""
        return self.input_tokens + self.cache_creation_input_tokens


class PromptCache:
    """The prompt prefixes that one key has sent with `cache_control`. They do not expire."""

    def __init__(self) -> None:
        """Start empty."""
        self._prefixes: OrderedDict[bytes, None] = OrderedDict()

    def measure(self, params: Json) -> Usage:
        """Measure a prompt: a read up to the longest known prefix, a creation from there to its last breakpoint."""
        breakpoints, total = _breakpoints(params)
        read = max((chars for prefix, chars in breakpoints if prefix in self._prefixes), default=0)
        cached = max((chars for _, chars in breakpoints), default=0)
        return Usage(_tokens(total - cached), _tokens(cached - read), _tokens(read))

    def write(self, params: Json) -> None:
        """Remember the prefixes of a prompt that was admitted."""
        for prefix, _ in _breakpoints(params)[0]:
            self._remember(prefix)

    def _remember(self, prefix: bytes) -> None:
        self._prefixes[prefix] = None
        self._prefixes.move_to_end(prefix)
        if len(self._prefixes) > PREFIXES:
            self._prefixes.popitem(last=False)


def uncached(params: Json) -> Usage:
    """Measure a prompt without cache breakpoints, which is nearly every one."""
    chars = len(json.dumps(params["tools"])) if params.get("tools") else 0
    chars += _weight(params.get("system") or "")
    chars += sum(_weight(message["content"]) for message in params["messages"])
    return Usage(max(1, _tokens(chars)))


def _breakpoints(params: Json) -> tuple[list[tuple[bytes, int]], int]:
    """Give (digest of the prefix, its characters) for each breakpoint, and the characters of the whole prompt."""
    digest, chars, found = blake2b(json.dumps(params["model"]).encode(), digest_size=16), 0, []
    for block in _blocks(params):
        bare = {name: value for name, value in block.items() if name != "cache_control"}
        digest.update(json.dumps(bare, sort_keys=True).encode())
        chars += _block_weight(block)
        if block.get("cache_control"):
            found.append((digest.digest(), chars))
    if params.get("cache_control"):  # automatic caching: the breakpoint is the last block
        found.append((digest.digest(), chars))
    return found, chars


def _blocks(params: Json) -> Iterator[Json]:
    """Give the blocks of a prompt in the order in which they are cached: tools, system, messages."""
    yield from params.get("tools") or ()
    for content in (params.get("system") or "", *(message["content"] for message in params["messages"])):
        yield from [{"type": "text", "text": content}] if isinstance(content, str) else content


def _weight(content: str | list[Json]) -> int:
    return len(content) if isinstance(content, str) else sum(map(_block_weight, content))


def _block_weight(block: Json) -> int:
    match block:
        case {"type": "text", "text": str(text)} | {"type": "thinking", "thinking": str(text)}:
            return len(text)
        case {"type": "document", "source": {"type": "text", "data": str(text)}}:
            return len(text)
        case {"type": "image"}:
            return IMAGE_CHARS
        case {"type": "document"}:
            return DOCUMENT_CHARS
        case {"type": "tool_result", "content": str() | list() as content}:
            return _weight(content)
    return len(json.dumps(block))


def _tokens(chars: int) -> int:
    return -(-chars // CHARS_PER_TOKEN)

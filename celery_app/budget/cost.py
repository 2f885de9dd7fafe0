"""What a call is going to cost, as far as its parameters tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

#: Input tokens of an image: 1.15 megapixels, to which the API scales larger ones, at 750 pixels a token
#: (platform.claude.com, vision).
IMAGE_TOKENS = 1_600

#: Input tokens of a document that is no text: three pages of PDF at "1,500 to 3,000 tokens" each (platform.claude.com,
#: PDF support). The call's usage puts it right.
DOCUMENT_TOKENS = 7_500

#: The parameters that become input tokens.
PROMPT_FIELDS = ("system", "messages", "tools")

#: What a block bears, or a whole request, that may be read from a cache.
CACHE_FIELD = "cache_control"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job takes out of the budget.

    Attributes:
        requests: calls to the API.
        input_tokens: tokens that are known, or estimated without the text.
        output_tokens: tokens of the answer; None: as many as the model lately produced.
        characters: text of the prompt; the budget adds its tokens, at the ratio learned for the model.
        max_tokens: bound of the answer where `output_tokens` is None; it is no cost by itself, the API does not count
            it (platform.claude.com, rate limits).
        cached: whether some of the input may be read from a cache, which does not count.
        usd: nanodollars that it costs at most, see `celery_app.budget.prices`; 0: no price is known.
    """

    requests: int = 1
    input_tokens: int = 0
    output_tokens: int | None = None
    characters: int = 0
    max_tokens: int | None = None
    cached: bool = False
    usd: int = 0


def cost_of(params: Mapping[str, Any]) -> Cost:
    """Measure a call of the Messages API.

    Args:
        params: the keyword arguments of ``create_message``, checked.

    Returns:
        Its cost: one request, the length of its text, and a flat number of tokens for what is no text.
    """
    size = size_of([params.get(field) for field in PROMPT_FIELDS])
    max_tokens = params.get("max_tokens")
    return Cost(
        input_tokens=size.tokens,
        characters=size.characters,
        max_tokens=max_tokens if isinstance(max_tokens, int) else None,
        cached=bool(params.get(CACHE_FIELD)) or size.cached,
    )


class Size(NamedTuple):
    """Characters of all text, flat tokens of images and documents, and whether some block asks to be cached."""

    characters: int
    tokens: int
    cached: bool


def size_of(left: list[Any]) -> Size:
    """Return the size of JSON values.

    With a list of what is left to do, because JSON may be nested deeper than Python calls functions.
    """
    characters, tokens, cached = 0, 0, False
    while left:
        value = left.pop()
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, list | tuple):
            left.extend(value)
        elif isinstance(value, Mapping):
            cached = cached or bool(value.get(CACHE_FIELD))
            flat = _flat_tokens(value)
            tokens += flat
            if not flat:
                # The names in a tool's JSON schema are part of the prompt, too.
                left.extend(value.keys())
                left.extend(value.values())
    return Size(characters, tokens, cached)


def _flat_tokens(block: Mapping[str, Any]) -> int:
    """Return the tokens of a block that is no text, 0 for any other object."""
    if "source" not in block:
        return 0
    source = block["source"]
    kind = source.get("type") if isinstance(source, Mapping) else None
    if block.get("type") == "image" and kind:
        return IMAGE_TOKENS
    if block.get("type") == "document" and kind not in {None, "text", "content"}:
        return DOCUMENT_TOKENS
    return 0

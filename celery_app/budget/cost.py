"""What a call is going to cost, as far as its parameters tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Input tokens of an image: 1.15 megapixels, to which the API scales larger ones, at 750 pixels a token
#: (platform.claude.com, vision).
IMAGE_TOKENS = 1_600

#: Input tokens of a document that is no text: three pages of PDF at "1,500 to 3,000 tokens" each (platform.claude.com,
#: PDF support). The call's usage puts it right.
DOCUMENT_TOKENS = 7_500

#: The parameters that become input tokens.
PROMPT_FIELDS = ("system", "messages", "tools")


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
    """

    requests: int = 1
    input_tokens: int = 0
    output_tokens: int | None = None
    characters: int = 0
    max_tokens: int | None = None


def cost_of(params: Mapping[str, Any]) -> Cost:
    """Measure a call of the Messages API.

    Args:
        params: the keyword arguments of ``create_message``, checked.

    Returns:
        Its cost: one request, the length of its text, and a flat number of tokens for what is no text.
    """
    characters, tokens = _size([params.get(field) for field in PROMPT_FIELDS])
    max_tokens = params.get("max_tokens")
    return Cost(
        input_tokens=tokens,
        characters=characters,
        max_tokens=max_tokens if isinstance(max_tokens, int) else None,
    )


def _size(value: Any) -> tuple[int, int]:
    """Return the characters of all text in a JSON value, and the flat tokens of images and documents."""
    if isinstance(value, str):
        return len(value), 0
    if isinstance(value, Mapping):
        return _size_of_object(value)
    if isinstance(value, list | tuple):
        sizes = [_size(item) for item in value]
        return sum(size[0] for size in sizes), sum(size[1] for size in sizes)
    return 0, 0


def _size_of_object(value: Mapping[str, Any]) -> tuple[int, int]:
    source = value.get("source")
    kind = source.get("type") if isinstance(source, Mapping) else None
    if value.get("type") == "image" and kind:
        return 0, IMAGE_TOKENS
    if value.get("type") == "document" and kind not in {None, "text", "content"}:
        return 0, DOCUMENT_TOKENS
    # The names in a tool's JSON schema are part of the prompt, too.
    characters, tokens = _size(list(value.values()))
    return characters + sum(map(len, value)), tokens

from typing import Any

import pytest

from celery_app.budget import Usage, cost_of
from celery_app.budget.cost import DOCUMENT_TOKENS, IMAGE_TOKENS

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo" * 9}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0" * 9}}


def call(content: Any, **params: Any) -> dict[str, Any]:
    """Return a call with one message."""
    return {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": content}], **params}


def test_all_text_of_a_prompt_counts():
    """System, messages and tools become input tokens; a longer text anywhere makes a larger cost."""
    tool = {"name": "weather", "description": "d" * 50, "input_schema": {"type": "object"}}
    plain = cost_of(call("hello")).characters
    assert cost_of(call("hello" + "x" * 30)).characters == plain + 30
    assert cost_of(call("hello", system="y" * 40)).characters == plain + 40
    assert cost_of(call("hello", tools=[tool])).characters > plain + 50


def test_text_weighs_the_same_in_a_block_and_in_a_tool_result():
    """However deep a text lies, its length is found."""
    text = {"type": "text", "text": "z" * 500}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [text]}
    assert cost_of(call([text])).characters >= 500
    assert cost_of(call([result])).characters >= 500


def test_an_image_costs_tokens_by_its_kind_not_by_its_bytes():
    """The length of base64 says nothing about tokens."""
    cost = cost_of(call([IMAGE, IMAGE]))
    assert cost.input_tokens == 2 * IMAGE_TOKENS
    assert cost.characters == cost_of(call([])).characters


def test_a_document_of_text_is_measured_and_one_of_pages_is_estimated():
    """A PDF is not opened; a text document is text."""
    text = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "w" * 700}}
    nested = {"type": "document", "source": {"type": "content", "content": [IMAGE]}}
    assert cost_of(call([PDF])).input_tokens == DOCUMENT_TOKENS
    assert cost_of(call([text])).input_tokens == 0
    assert cost_of(call([text])).characters >= 700
    assert cost_of(call([nested])).input_tokens == IMAGE_TOKENS


def test_a_schema_that_has_a_property_called_source_is_no_document():
    """Only a content block is an image or a document, not a tool's schema that talks about them."""
    schema = {"type": "object", "properties": {"source": {"type": "string"}, "type": {"type": "string"}}}
    assert cost_of(call("hi", tools=[{"name": "t", "input_schema": schema}])).input_tokens == 0


def test_max_tokens_bounds_the_answer_and_is_no_cost():
    """The API does not count max_tokens, so the output is left to what the model lately produced."""
    cost = cost_of(call("hi", max_tokens=64_000))
    assert cost.output_tokens is None
    assert cost.max_tokens == 64_000


@pytest.mark.parametrize("params", [{}, {"messages": None}, {"messages": [None, 3]}, call(None), call([{"type": 1}])])
def test_nonsense_costs_a_request(params):
    """The API will refuse the call; the budget does not fall over it before."""
    cost = cost_of(params)
    assert cost.requests == 1
    assert cost.input_tokens == 0


def test_the_depth_of_a_prompt_does_not_matter():
    """A tool's input may be nested as deep as JSON can be."""
    content: Any = "bottom"
    for _ in range(100_000):
        content = [content]
    cost = cost_of(call(content))
    while isinstance(content, list):  # Python itself would fall over taking it apart
        content = content.pop()
    assert cost.characters >= len("bottom")


def test_cache_reads_do_not_count():
    """The limit of input tokens counts what was not cached, and what went into the cache."""
    usage = {"input_tokens": 5, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 1_000, "output_tokens": 2}
    assert Usage.of({"usage": usage}) == Usage(12, 2, cache_read=1_000, cache_created=7)
    assert Usage.of({"usage": {"input_tokens": 5, "output_tokens": 2}}) == Usage(5, 2, cache_read=-1, cache_created=-1)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"usage": None},
        {"usage": {"input_tokens": 3}},
        {"usage": {"input_tokens": "3", "output_tokens": 1}},
        {"usage": {"input_tokens": True, "output_tokens": 1}},
        {"usage": {"input_tokens": 1, "output_tokens": 10**9}},
        {"usage": {"input_tokens": 10**19, "output_tokens": 1}},
    ],
)
def test_a_usage_that_makes_no_sense_is_none(message):
    """The estimate stands then."""
    assert Usage.of(message) is None


def test_a_gateway_without_cache_fields_is_understood():
    """Null is what some send for a field that they do not know."""
    usage = {"input_tokens": 5, "cache_creation_input_tokens": None, "output_tokens": 2}
    assert Usage.of({"usage": usage}) == Usage(5, 2)

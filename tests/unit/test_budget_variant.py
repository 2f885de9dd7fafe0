import pytest
from hypothesis import given, strategies as st

from celery_app import CRITICAL
from celery_app.budget import Usage, budget_for, metered_model
from celery_app.budget.variant import split_model
from celery_app.settings import Limits, Settings

LONG = "context-1m-2025-08-07"
FAST = "fast-mode-2026-02-01"


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({}, "m"),
        ({"speed": None}, "m"),
        ({"speed": "standard"}, "m"),
        ({"speed": "fast"}, "m+fast"),
        ({"extra_body": {"speed": "fast"}}, "m+fast"),
        ({"speed": "standard", "extra_body": {"speed": "fast"}}, "m+fast"),
        ({"speed": "ultra-2"}, "m+ultra-2"),
        ({"speed": "Patient: Ms Grün"}, "m"),
        ({"speed": 3}, "m"),
        ({"speed": ["fast"]}, "m"),
        ({"betas": [LONG]}, "m+context-1m"),
        ({"betas": LONG}, "m+context-1m"),
        ({"extra_body": {"betas": [FAST, LONG]}}, "m+context-1m"),
        ({"extra_body": {"anthropic_beta": ["context-1m-2027-01-01"]}}, "m+context-1m"),
        ({"extra_headers": {"anthropic-beta": f"files-api-2025-04-14, {LONG}"}}, "m+context-1m"),
        ({"extra_headers": {"Anthropic-Beta": LONG.upper()}}, "m+context-1m"),
        ({"extra_headers": {"anthropic-beta": "files-api-2025-04-14"}, "betas": [None, 5, FAST]}, "m"),
        ({"speed": "fast", "betas": [FAST, LONG]}, "m+fast"),
        ({"extra_headers": None, "extra_body": None, "betas": None}, "m"),
    ],
)
def test_a_call_is_counted_under_its_model_and_variant(params, name):
    """Wherever the call says it: fast calls, and those with the long context, have limits of their own at the API."""
    assert metered_model({"model": "m", **params}) == name


@pytest.mark.parametrize(
    ("name", "parts"), [("m", ("m", "")), ("m+fast", ("m", "fast")), ("+", ("+", "")), ("a+B", ("a+B", ""))]
)
def test_a_name_comes_apart_again(name, parts):
    """What is no variant belongs to the model's name."""
    assert split_model(name) == parts


def test_a_variant_has_a_budget_beside_its_models():
    """Whatever is configured: a fast call takes nothing from the others, nor they from it."""
    for settings in (
        Settings(),
        Settings(limits=Limits(rpm=5)),
        Settings(model_limits={"*": Limits(rpm=5)}),
        Settings(model_limits={"m*": Limits(rpm=5)}),
    ):
        usual, fast, long = (budget_for(settings, CRITICAL, name) for name in ("m", "m+fast", "m+context-1m"))
        assert len({usual.name, fast.name, long.name}) == 3
        assert usual.limits == fast.limits == long.limits
        assert usual.mixed == fast.mixed


def test_a_pattern_can_name_a_variant():
    """``*opus*+fast`` has its limits; a pattern without it does not take fast calls away from it, in any order."""
    limits = {"*": Limits(rpm=1), "*opus*+fast": Limits(rpm=2), "*opus*": Limits(rpm=3), "*+*": Limits(rpm=4)}
    settings = Settings(model_limits=limits)
    found = {
        name: budget_for(settings, CRITICAL, name).limits.rpm
        for name in ("opus-4", "opus-4+fast", "opus-4+context-1m", "haiku+fast")
    }
    assert found == {"opus-4": 1, "opus-4+fast": 2, "opus-4+context-1m": 4, "haiku+fast": 4}
    assert budget_for(settings, CRITICAL, "opus-4+fast").name == budget_for(settings, CRITICAL, "opus-5+fast").name


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": "12", "output_tokens": 5}, None),
        ({"input_tokens": 12, "output_tokens": 5, "cache_creation_input_tokens": None}, Usage(12, 5)),
        ({"input_tokens": -1, "output_tokens": 5}, None),
        ({"input_tokens": "many", "output_tokens": 5}, None),
        ({"input_tokens": True, "output_tokens": 5}, None),
        ({"output_tokens": 5}, None),
        ({"input_tokens": float("nan"), "output_tokens": 5}, None),
        ({"input_tokens": "9" * 5_000, "output_tokens": 5}, None),
        ({"prompt_tokens": 12, "completion_tokens": 5}, None),
        ([], None),
        ("12", None),
        (None, None),
    ],
)
def test_a_usage_is_what_makes_sense_of_it(usage, expected):
    """What is no count leaves the estimate as it stands."""
    assert Usage.of({"usage": usage}) == expected


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["speed", "betas", "extra_body", "extra_headers", "anthropic_beta"]), _JSON), _JSON
)
def test_no_parameter_is_too_strange(params, usage):
    """Whatever they are, there is a name, and a count or none."""
    assert metered_model({"model": "m", **params}).startswith("m")
    Usage.of({"usage": usage})

import json
from typing import Any

import httpx2
import pytest

from tasks.redaction import KEY, REPEATED, SHOWN, WITHHELD, redacted

SAID = "Rumpelstiltskin is the patient's name, says Dr. Grünwald"


def request(content: Any = SAID, key: str = "sk-request-0123", **more: Any) -> httpx2.Request:
    """Return a request as the SDK sends it."""
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **more}
    return httpx2.Request("POST", "http://api", json=body, headers={"x-api-key": key})


def test_the_apis_own_words_are_shown():
    """They are the only help that a caller has."""
    words = "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens for claude-haiku-4-5"
    assert redacted(words, request(), ["sk-lane-0123"]) == words


@pytest.mark.parametrize(
    "key", ["sk-request-0123", "sk-lane-0123", "lane-key-0123", "sk-of-somebody-else", "sk-abc***xyz"]
)
def test_no_key_is_shown(key):
    """The request's, the lanes', and whatever looks like one, however it is quoted."""
    shown = redacted(f'Invalid token: "{key}"!', request(), ["lane-key-0123", "sk-lane-0123"])
    assert shown == f'Invalid token: "{KEY}"!'


def test_a_key_that_is_cut_off_is_not_shown_either():
    """Keys are replaced before the message is shortened."""
    shown = redacted("x" * (SHOWN - 8) + "lane-key-0123", None, ["lane-key-0123"])
    assert "lane-key" not in shown


def test_a_word_that_is_somebodys_key_is_left_alone():
    """Three letters are no secret; without them the message would make no sense."""
    assert redacted("invalid key", request(key="key"), ["inv"]) == "invalid key"


@pytest.mark.parametrize(
    "quoted",
    [SAID, json.dumps(SAID), repr(SAID), SAID.upper(), SAID.replace(" ", "\n  "), SAID[5 : 5 + REPEATED]],
    ids=["plain", "json", "repr", "upper", "broken", "a part"],
)
def test_a_message_that_repeats_the_prompt_is_withheld(quoted):
    """Whether it quotes all of it or twenty characters, in whatever notation."""
    for content in (SAID, [{"type": "text", "text": SAID}], [{"type": "tool_result", "content": [{"text": SAID}]}]):
        assert redacted(f"cannot read {quoted} here", request(content), []) == WITHHELD
    assert redacted(f"cannot read {quoted} here", request("hi", system=SAID), []) == WITHHELD


def test_fewer_characters_are_a_coincidence():
    """Prompts are full of words that the API uses, too."""
    quoted = SAID[: REPEATED - 1]
    assert quoted in redacted(f"({quoted})", request(), [])


@pytest.mark.parametrize("kind", ["code_execution_tool_result", "text_editor_code_execution_tool_result"])
def test_the_names_of_the_api_are_no_prompt(kind):
    """A block's type is longer than a coincidence, and has to be told."""
    words = f"messages.0.content.0: Input tag '{kind}' is not expected"
    assert redacted(words, request([{"type": kind, "content": SAID}]), []) == words


def test_a_message_is_one_line_of_a_limited_length():
    """A gateway's page is not."""
    shown = redacted("<p>\n" * 10_000, request(), [])
    assert len(shown) == SHOWN + 1
    assert "\n" not in shown


def test_a_body_that_is_no_json_is_a_prompt_as_a_whole():
    """A project may send what it likes."""
    sent = httpx2.Request("POST", "http://api", content=SAID.encode())
    assert redacted(f"cannot read {SAID}", sent, []) == WITHHELD

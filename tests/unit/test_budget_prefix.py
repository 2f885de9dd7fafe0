"""The beginning of a prompt that a call marks for the API's cache."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from celery_app.broker.packet import packet_of
from celery_app.budget import cost_of, prefix_of
from celery_app.budget.prefix import LEAST_CHARACTERS
from celery_app.lanes import BATCH, CRITICAL
from celery_app.routing import PREFIX, stamped

LONG = "x" * LEAST_CHARACTERS
MARK = {"type": "ephemeral"}

#: Milliseconds that the API keeps it.
MINUTES, HOUR = 300_000, 3_600_000


def text(content: str = LONG, mark: dict[str, str] | None = None) -> dict[str, Any]:
    """Return a block of text, marked or not."""
    return {"type": "text", "text": content, **({"cache_control": mark} if mark else {})}


def asked(question: Any = "q", **more: Any) -> dict[str, Any]:
    """Return the parameters of a call."""
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": question}], **more}


TOOLS = [{"name": "t", "input_schema": {}}, {"name": "u", "input_schema": {}, "cache_control": MARK}]

#: What is marked, and where the beginning ends: behind it, another question makes no difference.
MARKED = {
    "system": {"system": [text(), text("", MARK)]},
    "tools": {"tools": [{**TOOLS[0], "description": LONG}, TOOLS[1]]},
    "both": {"tools": TOOLS, "system": [text(mark=MARK)]},
}


class TestWhatIsShared:
    """Two requests have one digest if and only if the API reads the one's beginning from the other's."""

    @pytest.mark.parametrize("where", MARKED)
    def test_what_stands_behind_the_mark_makes_no_difference(self, where):
        """Nor do the length of the answer and the like."""
        assert prefix_of(asked("one", **MARKED[where]))
        assert prefix_of(asked("one", **MARKED[where])) == prefix_of(asked("two", **MARKED[where], temperature=0))

    def test_within_the_messages_it_ends_at_the_last_mark(self):
        """Of several marks; the blocks behind it are nobody's business."""
        one, two = (prefix_of(asked([text("a", MARK), text(mark=MARK), text(rest)])) for rest in ("one", "two"))
        assert "," not in one  # the first is too short
        assert one == two
        assert one != prefix_of(asked([text("b", MARK), text(mark=MARK), text("one")]))

    @pytest.mark.parametrize(
        "other",
        [
            {"model": "other"},
            {"system": [text(LONG + "y", MARK)]},
            {"tools": [TOOLS[0]]},
            {"system": [text(mark={**MARK, "ttl": "1h"})]},
        ],
    )
    def test_what_stands_before_it_makes_one(self, other):
        """The model, what comes first, and for how long it is to be kept."""
        request = asked(system=[text(mark=MARK)])
        assert prefix_of(request).split()[0] != prefix_of({**request, **other}).split()[0]

    def test_each_mark_has_a_beginning_of_its_own(self):
        """Two conversations share what the system says, and not what was said since."""
        one, two = (
            prefix_of(asked([text(LONG + said, MARK)], system=[text(mark=MARK)])).split(",") for said in ("one", "two")
        )
        assert len(one) == len(two) == 2
        assert one[0] == two[0]
        assert one[1] != two[1]
        assert int(one[0].split()[2]) < int(one[1].split()[2])

    def test_a_choice_of_tools_counts_within_the_messages_only(self):
        """So the API says of what it has kept (prompt caching, what invalidates the cache)."""
        for request, is_same in ((asked("q", system=[text(mark=MARK)]), True), (asked([text(mark=MARK)]), False)):
            assert (prefix_of(request) == prefix_of({**request, "tool_choice": {"type": "any"}})) is is_same

    def test_a_whole_request_that_is_marked_is_shared_with_its_like(self):
        """The API marks the last block by itself."""
        request = asked(LONG, cache_control=MARK)
        assert prefix_of(request) == prefix_of(json.loads(json.dumps(request)))
        assert prefix_of(request) != prefix_of({**request, "messages": [{"role": "user", "content": LONG + "y"}]})


class TestWhatIsTold:
    """Nothing but a digest, a time and sizes."""

    def test_of_a_beginning_its_size_is_told_and_nothing_of_its_text(self):
        """With the whole of it, the size is that of the cost."""
        request = asked([text(mark=MARK)])
        digest, kept, characters, tokens = prefix_of(request).split()
        assert re.fullmatch(r"[0-9a-f]{32}", digest)
        assert (int(kept), int(characters), int(tokens)) == (MINUTES, cost_of(request).characters, 0)

    def test_it_is_kept_as_long_as_the_mark_says(self):
        """Five minutes, unless it asks for the hour."""
        assert prefix_of(asked(system=[text(mark={**MARK, "ttl": "1h"})])).split()[1] == str(HOUR)
        assert prefix_of(asked(system=[text(mark={**MARK, "ttl": "5m"})])).split()[1] == str(MINUTES)

    @pytest.mark.parametrize("request_", [asked(LONG), asked(system=LONG), asked(system=[text("short", MARK)])])
    def test_there_is_none_without_a_mark_or_below_what_the_api_keeps(self, request_):
        """Nobody waits for it."""
        assert prefix_of(request_) == ""

    def test_an_image_alone_is_enough(self):
        """Its tokens are not those of text."""
        source = {"type": "base64", "media_type": "image/png", "data": ""}
        found = prefix_of(asked([{"type": "image", "source": source, "cache_control": MARK}, text("what is it?")]))
        assert int(found.split()[3]) > LEAST_CHARACTERS


class TestOnItsWay:
    """A lane that does not ask for it has no field more."""

    def test_a_lane_that_does_not_ask_drops_the_header(self):
        """It was stated for whichever lane it would be."""
        headers = {PREFIX: prefix_of(asked(system=[text(mark=MARK)]))}
        assert PREFIX not in stamped(BATCH, headers, 0.0)
        assert PREFIX not in stamped(CRITICAL, headers, 0.0)

    def test_the_facts_have_more_only_with_a_beginning(self):
        """A job without one costs no byte more."""
        sizes = []
        for headers in ({}, {PREFIX: ""}, {PREFIX: "ab 1 2 3"}, {PREFIX: ["nonsense"]}):
            message = {"body": "", "headers": {"id": "1", **headers}, "properties": {}}
            sizes.append(len(json.loads(packet_of(message, 0).arguments()[1])))
        assert sizes[0] == sizes[1] == sizes[3] < sizes[2]

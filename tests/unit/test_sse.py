"""Server-sent events come apart in every form that they may have, wherever a chunk ends."""

from itertools import pairwise

from hypothesis import given, strategies as st

from tasks.sse import EventParser, ServerEvent

SENT = (
    b"\xef\xbb\xbf: a comment\n\n"
    b'event: one\ndata: {"a":\ndata: 1}\n\n'
    b"id: 7\nretry: 3\ndata:{}\n\n"
    b"event: bare\n\n\n\n"
    b"event\ndata\n\n"
    b"event:\xc3\xa4\nunknown: x\ndata:  [DONE] \n\n"
    b"data: last"
)
EVENTS = [
    ServerEvent("one", b'{"a": 1}'),
    ServerEvent("", b"{}"),
    ServerEvent("bare", b""),
    ServerEvent("ä", b"[DONE]"),
    ServerEvent("", b"last"),
]


def parsed(*chunks: bytes) -> list[ServerEvent]:
    """Return all events of a stream that comes in these chunks."""
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)] + list(parser.finish())


@given(st.lists(st.integers(0, 300), max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_an_event_is_the_same_wherever_it_is_cut(cuts, end):
    """Byte order mark, comments, line ends of all three kinds, split between any two bytes."""
    stream = SENT.replace(b"\n", end)
    at = [0, *sorted(cuts), len(stream)]
    assert parsed(*(stream[a:b] for a, b in pairwise(at))) == EVENTS


def test_every_byte_by_itself():
    """The worst that a network may do."""
    for end in (b"\n", b"\r\n", b"\r"):
        assert parsed(*(bytes([byte]) for byte in SENT.replace(b"\n", end))) == EVENTS


def test_an_event_is_given_as_soon_as_it_is_complete():
    """A reader does not wait for the next token to see this one, whichever line ends a gateway writes."""
    for end in (b"\n", b"\r\n", b"\r"):
        assert list(EventParser().feed(b"data: x" + end + end)) == [ServerEvent("", b"x")]


@given(st.lists(st.binary()))
def test_any_bytes_are_taken(chunks):
    """Whatever comes, there are events or none."""
    parsed(*chunks)

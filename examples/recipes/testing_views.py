"""Tests of a view: calls are answered in the test's own process, in milliseconds."""

# test_views.py
from ask_flask import site  # your own

MESSAGES = [{"role": "user", "content": "Hi"}]


def ask():
    return site.test_client().post("/ask", json={"messages": MESSAGES})


def test_answer(lanes):  # the fixture is there wherever ezai-lanes is installed
    lanes.answer("Hello!")  # or a message as a dict, a function of the parameters, an error; several: one for each call

    assert ask().json == {"answer": "Hello!"}
    (job,) = lanes.jobs("critical")
    assert job.params["messages"] == MESSAGES


def test_refusal(lanes):
    lanes.fail(status=529)
    assert ask().status_code == 502


def test_full_lane(lanes):
    lanes.fill("critical")
    assert ask().status_code == 503


def test_no_answer_in_time(lanes):
    lanes.hold()  # jobs wait until lanes.drain(); who waits for one is told at once that its time is over
    assert ask().status_code == 504

from celery_app.process.away import MOST_LINES, say_away


def test_an_outage_is_a_few_lines(caplog):
    """However many calls look for Redis while it is away, the log has two lines of each kind within 10 s."""
    for n in range(100):
        say_away("calls wait", ConnectionError(f"refused {n}"))
        say_away("results wait", ConnectionError(f"refused {n}"))

    assert len(caplog.messages) == 2 * MOST_LINES
    assert caplog.messages[0] == "calls wait: refused 0"

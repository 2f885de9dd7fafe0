"""What the exporter remembers of earlier looks, and what a lane wants because of it."""

import math

from celery_app import LANES
from celery_app.broker.lane_stats import LaneStats
from celery_app.metrics.backlog import REMEMBERED, Backlog
from celery_app.metrics.explanation import Shortage
from celery_app.metrics.look import LaneLook, Look
from celery_app.metrics.slots import TARGETS, USUAL_CALL
from celery_app.metrics.store import LaneActivity, Times

NOTHING = Shortage("batch", "", "", "", 0, 0, 0, has_worker=True, place=0, expected_us=-1)
NONE = Times({}, 0, 0)
NEVER = LaneActivity(totals={}, counts={}, counted_s=60, waits=NONE, calls=NONE)

#: Rows of ``scheduler/scripts/demand.lua``: models that are held up, fraction of the jobs that are not, what they get.
FREE, HELD, HALF = (0, b"1", b""), (1, b"0", b""), (1, b"0.5", b"")


def look(now: float, queued: int, demand: tuple[int, bytes, bytes] = FREE) -> Look:
    """Return a look at a batch lane with jobs, whose calls nobody has timed yet."""
    lanes = {
        lane.name: LaneLook(LaneStats(depth, None, 0, 0, 0), 1, 20, NOTHING, NEVER)
        for lane, depth in zip(LANES, (0, 0, queued), strict=True)
    }
    return Look(now, lanes, 1, 20, [], {}, [FREE, FREE, demand], None, None)


def wanted(*looks: Look) -> int:
    """Return what batch wants after these looks."""
    backlog = Backlog()
    return [backlog.slots_wanted(each)["batch"] for each in looks][-1]


def for_backlog(jobs: int) -> float:
    """Return the slots that a backlog alone takes."""
    return jobs * USUAL_CALL / TARGETS["batch"]


def test_what_comes_is_what_a_lane_grows_by():
    """A lane that grows by a job a second wants the slots that serve these, beside those for its backlog."""
    growing = wanted(*(look(1_000 + 10 * number, 10 * number) for number in range(4)))
    assert growing == math.ceil(for_backlog(30) + USUAL_CALL + math.sqrt(USUAL_CALL))


def test_a_burst_counts_once():
    """Jobs that came all at once are a backlog, and no rate that goes on."""
    burst = wanted(*(look(1_000 + 10 * number, 3_000 if number >= 3 else 0) for number in range(5)))
    assert burst == math.ceil(for_backlog(3_000))


def test_growth_that_the_budget_holds_up_is_no_load():
    """What piles up before a shut budget wants no slot; of a lane with two models only the free one's jobs do."""
    looks = [look(1_000 + 10 * number, 1_000 * number, HELD) for number in range(5)]
    assert wanted(*looks) == 0
    assert wanted(*looks, look(1_050, 5_000, HALF)) == math.ceil(for_backlog(2_500))


def test_some_minutes_are_remembered():
    """What grew before that does not count, nor what a clock says that was put back."""
    grown = [look(1_000 + 10 * number, 100 * number) for number in range(5)]
    later = look(1_050 + REMEMBERED, 400)
    assert wanted(*grown, later) == wanted(*grown, look(900, 400)) == wanted(later) < wanted(*grown)

"""How many more slots would serve a lane's backlog in time: what an autoscaler goes by.

By Little's law (L = λ·W; J. D. C. Little, Operations Research 9(3), 1961) jobs that arrive at λ per second and take S
seconds of a slot each keep λ·S slots busy, however their times vary. As they do vary, as many slots alone let the line
grow without end; √(λ·S) more keep a job from waiting at about four in five arrivals (square-root staffing: Halfin and
Whitt, Operations Research 29(3), 1981, with β = 1). Jobs that wait already are a fluid: Q of them are gone within T
seconds if Q·S/T slots do nothing else. So a lane needs λ·S + √(λ·S) + Q·S/T.

No slot makes an API's limit larger. A budget that feeds μ jobs a second keeps μ·S slots busy; more would wait for it in
vain. And as long as the budget is what the lane's jobs wait for, there are slots enough: none is wanted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Seconds within which a lane's backlog should be served. A person waits for `critical`; "seconds are fine" in
#: `normal`, "minutes are fine" in `batch` (README).
TARGETS = {"critical": 1.0, "normal": 10.0, "batch": 600.0}

#: Seconds of a slot per job before the first call has been timed: a short answer of a large model.
USUAL_CALL = 5.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a lane has to do, and what it may.

    Attributes:
        queued: jobs that wait for nothing but a slot.
        busy: slots that work for the lane.
        arriving: jobs per second that come to its line.
        call_s: seconds that a job keeps a slot.
        target_s: seconds within which a backlog should be served.
        fed: jobs per second that the budget allows at most; infinite where no limit is known.
        held: whether all its jobs wait for something other than a slot: the budget, or that somebody opens the lane.
    """

    queued: int
    busy: int
    arriving: float
    call_s: float
    target_s: float
    fed: float = math.inf
    held: bool = False


def slots_wanted(load: Load) -> int:
    """Return how many slots beyond the busy ones would serve the lane within its target; see the head of this file."""
    if load.held:
        return 0
    needed = _staffed(load.arriving * load.call_s) + load.queued * load.call_s / load.target_s
    useful = _staffed(load.fed * load.call_s)
    return max(0, math.ceil(min(needed, useful)) - load.busy)


def _staffed(offered: float) -> float:
    """Return the slots for a load that keeps `offered` of them busy on average."""
    return offered + math.sqrt(offered)

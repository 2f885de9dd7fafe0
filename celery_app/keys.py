"""Every key that the lanes have in Redis: its name, its type, how long it lives, and what it holds.

The scripts spell the same names, behind ``key('…')``: one test compares them with these, another one compares these
with what is in Redis while jobs run. All stand behind the broker's ``global_keyprefix``, and ``lanes:``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

#: Seconds that a cancellation is remembered: longer than any backlog that somebody would still work off.
CANCEL_KEPT = 7 * 86_400

#: Seconds for which it is remembered that a worker was told to stop: longer than any that still finishes its jobs.
LEAVING_KEPT = 86_400

#: Seconds that a submission is remembered once its job is in its place. A repetition comes after one or two timeouts of
#: a connection; those of a project that is more patient are a minute or two. At 1,000 jobs/s that makes 40 MB.
PUBLISHED_KEPT = 300

#: Seconds for which a large text waits for its job: a publisher that dies in between leaves it behind.
UPLOAD_KEPT = 600

#: Seconds that an end is remembered: until its result is stored. Short, because each job leaves one behind; while a
#: result cannot be stored it is prolonged.
ENDED_KEPT = 60

#: Seconds that an outcome lies ready for a caller who is just about to fetch it; then the result backend has it.
DONE_KEPT = 60

#: Seconds that a stream outlives its end: a reader whose connection broke comes back within seconds, one who closed
#: the laptop within minutes.
STREAM_KEPT = 600

#: Seconds that a stream is kept while its job runs or waits for its next attempt: the longest call of any lane (300 s)
#: and the longest backoff (60 s) many times over.
STREAM_KEPT_RUNNING = 3_600

#: Seconds that a stream is kept while its job waits in its lane: as long as a cancellation.
STREAM_KEPT_QUEUED = CANCEL_KEPT

#: Seconds that a batch is kept after its last job has ended.
BATCH_KEPT = 7 * 86_400

#: Seconds that it is kept what was spent in an hour, and in a day: a day longer than anybody is shown.
SPENT_HOURS_KEPT, SPENT_DAYS_KEPT = 3 * 86_400, 41 * 86_400
#: Seconds for which is remembered what was spent, after the last change: the jobs of a batch may wait for that long.
QUOTA_KEPT = 35 * 86_400

#: Seconds that a slot of the metrics is kept, and the longest window: twice the usual one, so that a dashboard can ask
#: for more.
SLOTS_KEPT = 600

#: Seconds that a worker's sign of life lasts: two may fail. A worker that stops takes its sign away.
SIGN_LASTS = 15

# The scripts' own: seconds for which a budget is kept that nobody uses, and a call that was taken for dead; a wakeup
# that nobody waits for; moments for which workers were told to look; a call that waits and has not asked again.
_BUDGET_KEPT, _LAPSED_KEPT, _WAKEUP_KEPT, _WAKES_KEPT, _ASKS_WITHIN = 86_400, 3_600, 60, 1, 2

# The same: for as long as the API keeps the beginning of a prompt at most, and as anybody waits for the first with it.
_PREFIX_KEPT, _PASSED_KEPT = 3_600, 10

_PART = re.compile(r"<\w+>")


@dataclass(frozen=True, slots=True)
class Key:
    """The keys of one kind.

    Attributes:
        name: after ``lanes:``; what is between ``<`` and ``>`` is another for each of them.
        type: as Redis calls it.
        kept: seconds after the last change at most; None: as long as there is anything in it.
    """

    name: str
    type: str
    kept: int | None = None

    def of(self, prefix: str, *parts: object) -> str:
        """Return the key in Redis for what stands in the name's places."""
        given = iter(parts)
        return f"{prefix}lanes:{_PART.sub(lambda _: str(next(given)), self.name)}"


#: "at", "ahead", "gap_at": the time that never goes back (scheduler/scripts/lib/clock.lua).
TIME = Key("time", "hash")

# The jobs, in the order in which one meets them.

#: Empty: this submission, by its token, is in its place.
PUBLISHED = Key("published:<lane>:<token>", "string", PUBLISHED_KEPT)
#: The text of a large job, until the job is entered: then it is at `TEXT`.
UPLOAD = Key("upload:<id>", "string", UPLOAD_KEPT)
#: Messages of stock producers while they are taken into a lane: a worker that dies meanwhile leaves them to the others.
ARRIVED = Key("arrived:<lane>", "list")
#: The number of the last job: its place in line.
NUMBER = Key("number", "string")
#: id -> the facts of a job, packed (scheduler/scripts/lib/jobs.lua). Every job is here until it is finished.
JOBS = Key("jobs", "hash")
#: id -> the text of a job: its message.
TEXTS = Key("texts", "hash")
#: The text of a large job, which no command for another job shall touch.
TEXT = Key("text:<id>", "string")
#: The id of the only job by this name; after its end for as long as its submitter has said (`unique_for`).
UNIQUE = Key("unique:<name>", "string")
#: "<lane>:queued", "…:scheduled", "…:held" -> how many jobs.
COUNTS = Key("counts", "hash")
#: ids, by priority step and number.
LINE = Key("line:<lane>:<length>:<model>:<tenant>", "zset")
#: The tenants that have a line for a model, by start tag.
TENANTS = Key("tenants:<lane>:<model>", "zset")
#: The models that have lines.
MODELS = Key("models:<lane>", "set")
#: The tenants that had jobs served, by the start tag of their next one.
TURNS = Key("turns:<lane>", "zset")
#: lane -> its present virtual time.
CLOCKS = Key("clocks", "hash")
#: tenant -> weight, as the settings say.
WEIGHTS = Key("weights", "hash")
#: ids of queued jobs that have a deadline, by that in ms.
DEADLINES = Key("deadlines", "zset")
#: ids of jobs that wait for a time, by that in ms.
SCHEDULED = Key("scheduled", "zset")
#: Sent by a script to one worker that waits for a queue: a single token.
WAKEUP = Key("bell:<queue>", "list", _WAKEUP_KEPT)
#: Processes that were told when to look again for a budget, by that in µs.
WAKES = Key("wakes:<lane>:<budget>", "zset", _WAKES_KEPT)
#: "<lane>|<budget>": the queues of calls that wait in their slots for a budget, by the time in ms when they lapse.
WAITERS = Key("waiters", "zset")
#: ids of the calls in one of these queues, by their place.
WAITERS_PLACES = Key("waiters:<queue>", "zset", _ASKS_WITHIN)
#: id -> what such a call needs, packed (scheduler/scripts/lib/waiters.lua).
WAITERS_FACTS = Key("waiters:<queue>:facts", "hash", _ASKS_WITHIN)
#: lane -> seconds of the budget that it is owed of its guaranteed share.
CREDITS = Key("credits", "hash")
#: ids of jobs, and of calls without one, that workers have, by the last sign of life in ms.
LEASES = Key("leases", "zset")
#: Set once a process was told to stop: killed after that, it died of no job.
LEAVING = Key("leaving:<process>", "string", LEAVING_KEPT)
#: Where the search for jobs goes on whose place somebody has deleted (scheduler/scripts/lib/mend.lua).
MENDED = Key("mended", "string")
#: The number of the last message that was taken from a queue that is no lane.
OWN = Key("own", "string")
#: Set once a job, or a whole batch, is to be cancelled.
CANCEL = Key("cancel:<id>", "string", CANCEL_KEPT)
#: Set once a job has ended by itself: it cannot be cancelled from then on.
ENDED = Key("ended:<id>", "string", ENDED_KEPT)
#: ids of jobs that ended in Redis, by the time in ms from which on a worker may take them to tell whoever waits.
ENDED_JOBS = Key("ended", "zset")
#: ids of dead letters, by the time of death in ms.
DEAD = Key("dead", "zset")
#: "bytes", "dropped" and "<lane>:dead" -> what they sum up to.
DEAD_TOTALS = Key("dead_totals", "hash")

# The budgets. A budget's name has the digest of an API key and a family of models.

#: "<lane>:<model>" -> the terms of its budget, JSON (`celery_app.budget.budget.Budget.terms`).
TERMS = Key("terms", "hash")
#: "<lane>|<family>" -> that the API has shut the budget, until when and why (`celery_app.budget.shut`).
SHUT = Key("budget:shut", "hash", _BUDGET_KEPT)
#: The levels, limits and pace that all models of a budget share (scheduler/scripts/lib/budgets.lua).
BUDGET = Key("budget:{<budget>}", "hash", _BUDGET_KEPT)
#: Reservations of the calls in flight: "<token of the claim>|<id>".
BUDGET_CALLS = Key("budget:{<budget>}:calls", "set", _BUDGET_KEPT)
#: Those whose processes are dead or cut off: a late answer still settles them.
BUDGET_LAPSED = Key("budget:{<budget>}:lapsed", "set", _LAPSED_KEPT)
#: What is known of a prompt's beginning that calls mark, by its digest (scheduler/scripts/lib/prefixes.lua).
PREFIX = Key("prefix:<account>:<digest>", "string", _PREFIX_KEPT)
#: line -> jobs at its front that wait for the first one with their prefix (scheduler/scripts/lib/passing.lua).
PASSED = Key("passed", "hash", _PASSED_KEPT)
#: What is known of one model.
BUDGET_MODEL = Key("budget:{<budget>}:model:<model>", "hash", _BUDGET_KEPT)

# What calls have cost (scheduler/scripts/lib/spent.lua); nothing where there are no prices.

#: "<what>|<kind>|<name>" -> calls, or nanodollars, of an hour: so many since the epoch.
SPENT_HOUR = Key("spent:hour:<hour>", "hash", SPENT_HOURS_KEPT)
#: The same of a day, by its date.
SPENT_DAY = Key("spent:day:<date>", "hash", SPENT_DAYS_KEPT)

# Amounts with a limit for a day, or for a batch (scheduler/scripts/lib/quota.lua).

#: "<kind>|<whose>" -> nanodollars that the settings allow for a day.
CAPS = Key("caps", "hash")
#: The ends of the next days in ms, in the time zone of the settings, if that is not UTC.
DAYS = Key("days", "zset")
#: What was spent of one of them, and when that ends.
QUOTA = Key("quota:<quota>", "hash", QUOTA_KEPT)
#: The batches of a lane with jobs that are set aside, as their batch may cost no more.
PARKED = Key("parked:<lane>", "set")
#: ids of these jobs, by priority step and number.
PARKED_LINE = Key("parked:<lane>:<batch>", "zset")

#: "revision", "decision", and "<kind>|…|…" -> what operators have set, JSON (scheduler/scripts/control.lua).
CONTROLS = Key("controls", "hash")

# Those who wait, and the workers.

#: The outcome of a job whose caller waits for it: its result as JSON, empty where the result backend has to be asked.
DONE = Key("done:<id>", "list", DONE_KEPT)
#: The events of a job's answer. It is there, empty, from the job's submission on; it lives shorter once the job runs
#: (`STREAM_KEPT_RUNNING`), and shorter still once it has ended (`STREAM_KEPT`).
STREAM = Key("stream:<id>", "stream", STREAM_KEPT_QUEUED)
#: What is known of a batch: how many jobs it has, "queued", "placed", "done", "failed", "cancelled"; in nanodollars
#: what its calls have cost, spared and may cost: "usd", "saved", "lanes_cap".
BATCH_COUNTS = Key("batch:<batch>", "hash", BATCH_KEPT)
#: A bit for each job of a batch that was counted.
BATCH_SEEN = Key("batch:<batch>:seen", "string", BATCH_KEPT)
#: The jobs of a batch in the order of their ends: their indices and outcomes.
BATCH_ENDED = Key("batch:<batch>:ended", "stream", BATCH_KEPT)
#: The indices of a batch's jobs that failed: a replayed one counts anew.
BATCH_FAILED = Key("batch:<batch>:failed", "hash", BATCH_KEPT)
#: Names of the worker processes that serve a lane, "<id>:<slots>", by the last sign of life in ms.
WORKERS = Key("workers:<lane>", "zset", SIGN_LASTS)

# The metrics, by the server's clock.

#: "<lane>:<kind>" -> how many events there ever were.
TOTALS = Key("metrics:totals", "hash")
#: The number of the last batch of counts that a worker process wrote.
SENDER = Key("metrics:sender:<process>", "string", SLOTS_KEPT)
#: kind -> how many events, in the seconds from <slot> x `celery_app.metrics.store.COUNTS_SLOT` on.
COUNTS_SLOTS = Key("metrics:<lane>:counts:<slot>", "hash", SLOTS_KEPT)
#: bucket of the histogram -> how many calls, with "sum_us" and "longest_us"; from <slot> x `WAITS_SLOT` s on.
WAITS_SLOTS = Key("metrics:<lane>:waits:<slot>", "hash", SLOTS_KEPT)
#: The same of how long calls took.
CALLS_SLOTS = Key("metrics:<lane>:calls:<slot>", "hash", SLOTS_KEPT)

#: All of them.
KEYS = tuple(each for each in tuple(globals().values()) if isinstance(each, Key))

#: The task whose jobs have a `STREAM`.
STREAM_TASK: Final = "tasks.stream_message"

# The fields of an entry of a stream. One entry carries all events of up to 15 ms.

#: Token of the attempt that wrote the entry: one that went on although its lease was over is told from its successor.
ATTEMPT: Final = b"a"

#: Number of the entry's first event within its attempt, from 0: an entry that was sent twice is read once.
FIRST: Final = b"n"

#: The events, each a line of JSON.
EVENTS: Final = b"e"

#: In the last entry only: the whole message as JSON, empty where the job failed.
MESSAGE: Final = b"m"

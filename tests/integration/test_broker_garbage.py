import base64
import itertools
import json
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
from kit import records
from kit.broker import Broker
from kit.waiting import wait_until

IN_TIME_S = 20.0
TEXT = "the-prompt-that-nobody-may-read"
SLOTS = 4


@pytest.fixture(scope="module")
def broker(valkey, tmp_path_factory):
    """A broker that gets garbage."""
    with Broker(tmp_path_factory.mktemp("garbage"), valkey.url(4)) as broker:
        yield broker


@pytest.fixture(scope="module")
def worker(broker):
    """One worker that has to survive it all; it refuses what is larger than 10 kB."""
    return broker.worker(slots=SLOTS, app="kit.small", loglevel="INFO")


def message(tag: str, **changes: Any) -> dict[str, Any]:
    """Return a well-formed job of kombu's that asks for a result, with parts replaced; None removes one."""
    body = base64.b64encode(json.dumps([[TEXT], {}, {"chord": None}]).encode()).decode()
    headers = {"id": f"id-{tag}", "task": "kit.echo", "retries": 0, "lang": "py", "argsrepr": f"('{TEXT}',)"}
    properties = {
        "correlation_id": f"id-{tag}",
        "delivery_info": {"exchange": "", "routing_key": "normal"},
        "priority": 3,
        "body_encoding": "base64",
        "delivery_tag": tag,
    }
    made = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
        **changes,
    }
    return {key: value for key, value in made.items() if value is not None}


def encoded(value: Any) -> str:
    """Return a body in kombu's encoding."""
    return base64.b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()


def with_headers(tag: str, **headers: Any) -> dict[str, Any]:
    """Return a job with other headers."""
    made = message(tag)
    made["headers"].update(headers)
    return made


def with_properties(tag: str, **properties: Any) -> dict[str, Any]:
    """Return a job with other properties."""
    made = message(tag)
    made["properties"].update(properties)
    return made


GARBAGE: dict[str, Callable[[str], Any]] = {
    "no JSON": lambda _: f"{TEXT} is no JSON",
    "no text": lambda _: b"\xff\xfe" + TEXT.encode(),
    "half a JSON": lambda tag: json.dumps(message(tag))[:-30],
    "half a JSON with a tag": lambda tag: json.dumps(message(tag))[:-1],
    "no tag": lambda tag: message(tag, properties={"delivery_info": {}}),
    "a tag that is no text": lambda tag: with_properties(tag + "x", delivery_tag="\ud800") | {"body": 7},
    "nested without end": lambda _: "[" * 100_000,
    "a list": lambda tag: json.dumps([TEXT, {"delivery_tag": tag}]),
    "headers that are a list": lambda tag: message(tag, headers=[TEXT]),
    "headers that are text": lambda tag: message(tag, headers=TEXT),
    "no headers": lambda tag: message(tag, headers=None),
    "pickle": lambda tag: message(
        tag,
        **{
            "content-type": "application/x-python-serialize",
            "content-encoding": "binary",
            "body": encoded(pickle.dumps([TEXT])),
        },
    ),
    "yaml": lambda tag: message(tag, **{"content-type": "application/x-yaml"}),
    "unknown body encoding": lambda tag: with_properties(tag, body_encoding="nonsense"),
    "unknown task": lambda tag: with_headers(tag, task="nobody.knows.this"),
    "no task": lambda tag: with_headers(tag, task=None),
    "a task that is a number": lambda tag: with_headers(tag, task=7),
    "body that is no base64": lambda tag: message(tag, body="A" + TEXT),
    "body that is no text": lambda tag: message(tag, body=7),
    "body that is no JSON": lambda tag: message(tag, body=encoded(TEXT.encode())),
    "body that is no UTF-8": lambda tag: message(tag, body=encoded(b"\xff\xfe" + TEXT.encode())),
    "body of another shape": lambda tag: message(tag, body=encoded({"prompt": TEXT})),
    "body that is null": lambda tag: message(tag, body=encoded(None)),
    "arguments that are text": lambda tag: message(tag, body=encoded([TEXT, TEXT, {}])),
    "a strange eta": lambda tag: with_headers(tag, eta="tomorrow"),
    "an eta that is a number": lambda tag: with_headers(tag, eta=7),
    "strange expiry": lambda tag: with_headers(tag, expires="tomorrow"),
    "strange time limits": lambda tag: with_headers(tag, timelimit=TEXT),
    "a type that kombu refuses": lambda tag: message(
        tag, body=encoded([[{"__type__": "x", "__value__": TEXT}], {}, {}])
    ),
    "too large": lambda tag: message(tag, body=encoded([[TEXT * 1_000], {}, {}])),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_goes_to_the_dead_letters(broker, worker, kind):
    """Garbage of each kind is kept with a reason, nothing of it stays claimed, and the job behind it is done.

    Whoever waits for its result is told, if it says whose it is.
    """
    made = GARBAGE[kind](f"tag-{kind}")
    text = json.dumps(made) if isinstance(made, dict) else made
    before = broker.client.zcard("lanes:dead")
    broker.client.lpush("normal\x06\x163", text)
    broker.send("kit.job", kind, queue="normal", ignore_result=True)
    wait_until(
        lambda: broker.client.zcard("lanes:dead") == before + 1,
        f"{kind} is dead-lettered; log:\n{worker.output()[-3000:]}",
        IN_TIME_S,
    )
    broker.event_log.wait_for("end", [kind], IN_TIME_S)
    wait_until(lambda: broker.in_flight() == 0, "nothing is claimed any more", IN_TIME_S)
    letters = [records.facts(broker.client, job_id) for job_id in records.ids_in(broker.client, "dead")]
    assert all(letter["lane"] == "normal" and len(letter["reason"]) > len("rejected") for letter in letters)
    assert not any(TEXT in letter["reason"] for letter in letters)
    assert worker.process.poll() is None
    wait_until(lambda: not records.ids_in(broker.client, "ended"), "those who wait are told", IN_TIME_S)
    headers = made.get("headers") if isinstance(made, dict) else None
    if isinstance(headers, dict):
        assert broker.app.AsyncResult(headers["id"]).state == "FAILURE"


#: Numbers that make no sense, as JSON has them.
STRANGE = ("1.7976931348623157e308", f"1{'0' * 400}", "-1e308", "NaN", "Infinity", "-5", "true", '"soon"', "[1]")

#: Headers and properties that are numbers; each is given each of these.
NUMBERS = (
    '"headers": {"deadline_at": STRANGE, ',
    '"headers": {"submitted_at": STRANGE, ',
    '"headers": {"retries": STRANGE, "lanes_timeouts": STRANGE, "lanes_refused_at": STRANGE, ',
    '"headers": {"lanes_unique": "NAME", "lanes_unique_for": STRANGE, ',
    '"headers": {"lanes_model": "m", "lanes_cost": [STRANGE, STRANGE, 0, -1, -1, 0], ',
    '"headers": {"lanes_batch": "no batch of ours", "lanes_tenant": STRANGE, "lanes_reply": STRANGE, ',
    '"properties": {"priority": STRANGE, ',
)


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_that_make_no_sense_are_not_said(broker, worker, number):
    """A job of a stock producer runs whatever its headers have for numbers, and its worker lives."""
    dead = broker.client.zcard("lanes:dead")
    names = [f"{NUMBERS.index(number)}-{at}" for at in range(len(STRANGE))]
    for name, strange in zip(names, STRANGE, strict=True):
        made = message(f"number-{name}", body=encoded([[name], {}, {}]))
        made["headers"]["task"] = "kit.job"
        del made["headers"]["retries"], made["properties"]["priority"]
        place = number.partition("{")[0]
        said = number.replace("STRANGE", strange).replace("NAME", name)
        broker.client.lpush("normal\x06\x163", json.dumps(made).replace(place + "{", said, 1))
    broker.event_log.wait_for("end", names, IN_TIME_S)
    wait_until(lambda: broker.in_flight() == 0, "nothing is claimed any more", IN_TIME_S)
    assert broker.client.zcard("lanes:dead") == dead
    assert worker.process.poll() is None


#: Whatever else a message has, with what stands before it.
FIELDS = (
    *(
        f'"headers": {{"{name}": '
        for name in (
            *(
                "id",
                "task",
                "retries",
                "eta",
                "expires",
                "timelimit",
                "group",
                "group_index",
                "root_id",
                "parent_id",
                "argsrepr",
                "kwargsrepr",
            ),
            *("origin", "shadow", "stamps", "stamped_headers", "ignore_result", "replaced_task_nesting", "lang"),
            *("lanes_publish", "lanes_unique", "lanes_model", "lanes_claim", "lanes_queue", "compression"),
        )
    ),
    *(
        f'"properties": {{"{name}": '
        for name in (
            *("delivery_tag", "delivery_info", "delivery_mode", "reply_to", "correlation_id", "body_encoding"),
            *("lanes_claim", "lanes_queue", "lanes_ticket", "lanes_verdict", "lanes_cancelled"),
        )
    ),
)


def test_a_message_with_any_field_that_makes_no_sense_ends(broker, worker):
    """It is worked on or dead-lettered, nothing stays claimed, and its worker lives."""
    for number, (field, strange) in enumerate(itertools.product(FIELDS, (*STRANGE, "{}", '"\\ud800"'))):
        made = message(f"field-{number}", body=encoded([["an echo"], {}, {}]))
        place, _, key = field.partition("{")
        part = made[place.strip('": ')]
        part.pop(key.strip('": '), None)
        text = json.dumps(made).replace(place + "{", f"{field}{strange}, ", 1)
        broker.client.lpush("normal\x06\x163", text)
    broker.send("kit.job", "after nonsense", queue="batch", ignore_result=True)
    broker.event_log.wait_for("end", ["after nonsense"], 3 * IN_TIME_S)
    left = ("normal\x06\x163", "lanes:arrived:normal", "lanes:models:normal", "lanes:leases", "lanes:ended")
    wait_until(lambda: not broker.client.exists(*left), "all have ended, and are told", 3 * IN_TIME_S)
    assert worker.process.poll() is None


def test_all_slots_are_usable_after_garbage(broker, worker):
    """After all that garbage the worker still runs as many jobs at once as it has slots."""
    assert worker.process.poll() is None
    for n in range(SLOTS):
        broker.send("kit.gated", f"slot-{n}", "slots", queue="normal", ignore_result=True)
    try:
        broker.event_log.wait_for("start", [f"slot-{n}" for n in range(SLOTS)], IN_TIME_S)
    finally:
        broker.event_log.open_gate("slots")


def test_no_prompt_reaches_the_log(broker, worker):
    """Nothing of any job's text is in the worker's log, not even of those that could not be read."""
    assert broker.client.zcard("lanes:dead") > 0
    assert TEXT not in worker.output()
    assert base64.b64encode(TEXT.encode())[:20].decode() not in worker.output()


def test_an_unknown_tasks_caller_is_told(broker, worker):
    """Whoever waits for the result of a task that no worker knows gets NotRegistered, not silence."""
    assert worker.process.poll() is None
    result = broker.send("nobody.knows", queue="normal")
    give_up_at = time.monotonic() + IN_TIME_S
    with pytest.raises(Exception, match="nobody") as caught:
        result.get(timeout=give_up_at - time.monotonic())
    assert type(caught.value).__name__ == "NotRegistered"

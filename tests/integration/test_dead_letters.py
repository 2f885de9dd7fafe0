import threading
from dataclasses import replace
from typing import Any

import pytest
from kit.records import facts, ids_in, queued
from kit.script_client import MAX_DEATHS, ScriptClient
from kit.waiting import wait_until
from redis import Redis

from celery_app import LANES, create_app, dead_letters
from celery_app.dead_letters import Purged, Replayed
from celery_app.errors import UnknownDeadLetter
from celery_app.routing import MODEL, TENANT, UNIQUE
from celery_app.scheduler.scripts import DONE_ENDED, PRESENT, REPLAY, TAKE_ENDED
from celery_app.settings import Settings
from tests.conftest import close

#: Seconds within which what takes milliseconds is done, on a busy machine.
SOON_S = 10.0

#: As scheduler/scripts/lib/dead.lua has them.
KEPT_MS, MOST, MOST_BYTES = 7 * 86_400 * 1_000, 10_000, 256 * 1024 * 1024


def dead_letter(
    app: Any, client: Redis, name: str, body: str = "", reason: str = "a test's reason", **options: Any
) -> None:
    """Have one job claimed and dead-lettered."""
    options = {"task": "kit.job", "queue": "batch", "ignore_result": True, **options}
    app.send_task(options.pop("task"), (body,), task_id=name, **options)
    scripts = ScriptClient(client)
    (held,) = scripts.claim()
    assert scripts.dead_letter(held, reason) == 1


def aged(client: Redis, ms: float) -> None:
    """Have all dead letters be older."""
    for name, died_at in client.zrange("lanes:dead", 0, -1, withscores=True):
        client.zadd("lanes:dead", {name: died_at - ms})


def dead_before(app: Any, client: Redis, count: int, ms: float) -> None:
    """Have dead letters from an earlier time, as many copies of one as are wanted."""
    dead_letter(app, client, "one")
    facts, text = client.hget("lanes:jobs", "one"), client.hget("lanes:texts", "one")
    died_at = client.zscore("lanes:dead", "one")
    with client.pipeline(transaction=False) as pipe:
        pipe.delete("lanes:dead", "lanes:jobs", "lanes:texts")
        for n in range(count):
            pipe.hset("lanes:texts", f"old-{n:05}", text)
            pipe.hset("lanes:jobs", f"old-{n:05}", facts)
            pipe.zadd("lanes:dead", {f"old-{n:05}": died_at - ms + n})
        pipe.hset("lanes:dead_totals", mapping={"batch:dead": count, "bytes": count * len(text)})
        pipe.execute()


def sizes(client: Redis) -> list[int]:
    """Return how many dead letters each place knows of."""
    texts = client.hlen("lanes:texts") + len(client.keys("lanes:text:*"))
    return [client.zcard("lanes:dead"), client.hlen("lanes:jobs"), texts, total(client, "batch:dead")]


def total(client: Redis, name: str) -> int:
    """Return what the dead letters sum up to."""
    return int(client.hget("lanes:dead_totals", name) or 0)


def size_of(client: Redis, name: str) -> int:
    """Return the bytes of a dead letter."""
    return client.hstrlen("lanes:texts", name) + client.strlen(f"lanes:text:{name}")


def test_the_oldest_dead_letters_make_room(lanes_app, client):
    """Beyond 10,000 the oldest goes with each that comes, is counted, and every place agrees on what is left."""
    dead_before(lanes_app, client, MOST, 60_000)
    for n in range(3):
        dead_letter(lanes_app, client, f"new-{n}")
    assert sizes(client) == [MOST] * 4
    assert total(client, "dropped") == 3
    assert client.zrange("lanes:dead", 0, 0) == [b"old-00003"]
    assert client.zrange("lanes:dead", -3, -1) == [b"new-0", b"new-1", b"new-2"]


def test_old_dead_letters_go_by_themselves(lanes_app, client):
    """After seven days they go with a worker's sign of life, a bounded number each time; younger ones stay."""
    dead_before(lanes_app, client, 150, KEPT_MS - 60_000)
    dead_letter(lanes_app, client, "young")
    PRESENT.run(client, (), ("", "w@host", 15_000, "batch"))
    assert sizes(client) == [151] * 4
    aged(client, 120_000)
    PRESENT.run(client, (), ("", "w@host", 15_000, "batch"))
    assert 1 < client.zcard("lanes:dead") < 150
    PRESENT.run(client, (), ("", "w@host", 15_000, "batch"))
    assert sizes(client) == [1] * 4
    assert total(client, "dropped") == 150
    assert total(client, "bytes") == size_of(client, "young")


def test_dead_letters_are_bounded_by_bytes(lanes_app, client):
    """Large ones are bounded by 256 MB together, however few they are; the newest always stays."""
    large = "x" * (30 * 1024 * 1024)
    lanes_app.conf.broker_transport_options = {"socket_timeout": 3 * SOON_S}  # so much takes its time on a busy machine
    for n in range(8):
        dead_letter(lanes_app, client, f"large-{n}", large, retry_policy={"max_retries": 0})
    assert sizes(client) == [6] * 4
    assert total(client, "dropped") == 2
    assert total(client, "bytes") == sum(letter.size for letter in dead_letters.find(lanes_app)) <= MOST_BYTES
    assert client.zrange("lanes:dead", -1, -1) == [b"large-7"]
    client.flushdb()


def test_no_dead_letter_goes_before_it_is_told(lanes_app, client):
    """However large the others are: whoever waits for it would wait for ever. Once it is told, it makes room."""
    scripts = ScriptClient(client)
    for name in ("first", "second"):
        lanes_app.send_task("kit.job", task_id=name, queue="batch")
    client.hset("lanes:dead_totals", "bytes", 2 * MOST_BYTES)
    client.zadd("lanes:dead", {"nothing": 0})
    for _ in range(MAX_DEATHS):
        for held in scripts.claim(2):
            scripts.requeue(held, went_wrong=True)
    assert [row[0] for row in TAKE_ENDED.run(client, (), ("", 20, 60_000))] == [b"first", b"second"]
    DONE_ENDED.run(client, (), ("", "first"))
    PRESENT.run(client, (), ("", "w@host", 15_000, "batch"))
    assert client.zrange("lanes:dead", 0, -1) == [b"second"]


def test_a_dead_letters_id_may_be_used_again(lanes_app, client):
    """The next job with the id of a dead one is a job of its own; two deaths make two dead letters."""
    for body in ("a", "a longer one"):
        dead_letter(lanes_app, client, "again", body)
    assert sizes(client) == [2] * 4
    assert [letter.task_id for letter in dead_letters.find(lanes_app)] == ["again", "again"]
    assert total(client, "bytes") == sum(letter.size for letter in dead_letters.find(lanes_app))


def test_deleted_dead_letters_do_not_count(lanes_app, client):
    """Whoever deletes their set has forgotten them: what comes after is counted from nothing."""
    dead_letter(lanes_app, client, "one", "x" * 1_000)
    client.delete("lanes:dead")
    dead_letter(lanes_app, client, "two")
    assert [letter.id for letter in dead_letters.find(lanes_app)] == ["two"]
    assert total(client, "batch:dead") == 1
    assert total(client, "bytes") == size_of(client, "two")


def test_the_newest_dead_letters_are_listed_with_what_they_were(lanes_app, client):
    """Lane, task, id, reason, age and size, and nothing of the arguments; as many as are asked for."""
    for name in ("first", "second", "third"):
        dead_letter(lanes_app, client, name, "a secret prompt")
    aged(client, 60_000)
    letters = dead_letters.find(lanes_app, most=2)
    assert [(letter.id, letter.task_id) for letter in letters] == [("third", "third"), ("second", "second")]
    assert {(letter.lane, letter.task, letter.reason) for letter in letters} == {
        ("batch", "kit.job", "a test's reason")
    }
    assert all(letter.size == size_of(client, letter.id) for letter in letters)
    assert all(60 <= letter.age_s < 120 for letter in letters)
    assert "secret" not in repr(letters)


def test_dead_letters_are_found_by_what_they_were(lanes_app, client):
    """By lane, task or its pattern, a part of the reason, tenant and time; by all that is said at once."""
    dead_letter(lanes_app, client, "a", task="proj.one", queue="critical", reason="the API refuses the Account: 401")
    dead_letter(lanes_app, client, "b", task="proj.two", headers={TENANT: "ada"})
    aged(client, 3_600_000)
    dead_letter(lanes_app, client, "c", task="other.one", headers={TENANT: "ada", MODEL: "m"})

    def found(**choice: Any) -> str:
        return "".join(letter.id for letter in dead_letters.find(lanes_app, **choice))

    assert found() == "cba"
    assert (found(lane="critical"), found(lane="batch"), found(lane="none")) == ("a", "cb", "")
    assert (found(task="proj.one"), found(task="proj.*"), found(task="proj")) == ("a", "ba", "")
    assert (found(reason="account"), found(reason="TEST"), found(reason="")) == ("a", "cb", "cba")
    assert (found(tenant="ada"), found(tenant="")) == ("cb", "a")
    assert (found(since=60), found(before=60), found(since=7_200, before=60)) == ("c", "ba", "ba")
    assert (found(tenant="ada", task="proj.*", before=60), found(most=2)) == ("b", "cb")
    (newest,) = dead_letters.find(lanes_app, most=1)
    assert (newest.tenant, newest.model, newest.task, newest.tries) == ("ada", "m", "other.one", 0)
    assert newest.submitted_at <= newest.died_at


def test_a_replayed_job_stands_where_it_stood(lanes_app, client):
    """Before all that came later, with its id, its text, fresh attempts and no trace of its death."""
    dead_letter(lanes_app, client, "first", "the first", queue="batch")
    for name in ("second", "third"):
        lanes_app.send_task("kit.job", (), task_id=name, queue="batch", ignore_result=True)
    scripts = ScriptClient(client)
    assert dead_letters.replay(["first"], lanes_app) == Replayed(replayed=1)
    assert queued(client, "batch") == ["first", "second", "third"]
    known = facts(client, "first")
    assert [known[name] for name in ("tries", "timeouts", "deaths", "suspect", "reason", "ending", "claim")] == [
        0,
        0,
        0,
        0,
        "",
        "",
        "",
    ]
    (held,) = scripts.claim()
    assert (held.name, held.job.tries, scripts.ack(held)) == ("first", 0, 1)
    assert total(client, "batch:dead") == total(client, "bytes") == 0


def test_a_replayed_job_has_as_long_a_deadline_as_it_had(lanes_app, client):
    """From its replay on: a normal job that died long ago would end at once with the one it had."""
    lanes_app.send_task("kit.job", (), task_id="late", queue="normal", ignore_result=True)
    scripts = ScriptClient(client)
    (held,) = scripts.claim()
    assert scripts.dead_letter(held, "why") == 1
    # It had 60 s, and they are long over.
    with_deadline(client, "late", submitted_ago=7_200_000, allowed=60_000)
    assert dead_letters.replay(["late"], lanes_app).replayed == 1
    (held,) = scripts.claim()
    assert 50_000 < held.job.left_ms <= 60_000
    assert held.job.waited_ms < 10_000


def with_deadline(client: Redis, name: str, submitted_ago: int, allowed: int) -> None:
    """Have a job be one of a former time, ms."""
    script = """
    local facts = cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1]))
    local time = redis.call('TIME')
    facts[9] = time[1] * 1000 - ARGV[2]
    facts[10] = facts[9] + ARGV[3]
    redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(facts))
    """
    client.eval(script, 1, "lanes:jobs", name, submitted_ago, allowed)


def test_a_large_job_is_replayed_and_purged_whole(lanes_app, client):
    """Its text has a key of its own, stays there while it is replayed, and goes with it."""
    dead_letter(lanes_app, client, "large", "x" * 200_000)
    assert dead_letters.payload("large", lanes_app) == {"args": ["x" * 200_000], "kwargs": {}}
    assert dead_letters.replay(["large"], lanes_app).replayed == 1
    scripts = ScriptClient(client)
    (held,) = scripts.claim()
    assert client.strlen("lanes:text:large") > 200_000
    assert scripts.dead_letter(held, "again") == 1
    assert dead_letters.purge(["large"], lanes_app) == Purged(1, 0, 0)
    assert sizes(client) == [0] * 4


@pytest.mark.parametrize("text", [b"\xffno message", b"[1]", b'{"body": "x", "headers": {}, "properties": {}}', b""])
def test_what_nobody_can_read_is_shown_as_it_is(lanes_app, client, text):
    """A stock producer's nonsense may be replayed once a worker can read it."""
    dead_letter(lanes_app, client, "odd")
    client.hset("lanes:texts", "odd", text)
    assert dead_letters.payload("odd", lanes_app) == {"message": text.decode(errors="replace")}
    assert dead_letters.replay(["odd"], lanes_app).replayed == 1
    assert ScriptClient(client).claim()[0].text == text


def test_what_is_no_dead_letter_is_told(lanes_app, client):
    """An id that is none is an error before anything is done; one that has just gone is counted."""
    dead_letter(lanes_app, client, "one")
    (letter,) = dead_letters.find(lanes_app)
    for ask in (dead_letters.get, dead_letters.payload, lambda name, app: dead_letters.replay(["one", name], app)):
        with pytest.raises(UnknownDeadLetter, match="There is no dead letter 'nobody'"):
            ask("nobody", lanes_app)
    assert ids_in(client, "dead") == ["one"]
    assert dead_letters.replay([letter], lanes_app) == Replayed(replayed=1)
    assert dead_letters.replay([letter], lanes_app) == Replayed(gone=1)
    assert dead_letters.purge([letter], lanes_app) == Purged(0, 1, 0)
    assert queued(client, "batch") == ["one"]


@pytest.fixture
def small_app(broker_url):
    """An application whose batch lane has room for three jobs."""
    lanes = [lane if lane.name != "batch" else replace(lane, capacity=3) for lane in LANES]
    app = create_app(Settings(broker_url=broker_url, result_backend=broker_url, lanes=lanes))
    yield app
    close(app)


def test_a_full_lane_takes_no_more(small_app, client):
    """The oldest go as far as there is room, the others stay, and are told; the next time there may be."""
    for n in range(4):
        dead_letter(small_app, client, f"old-{n}")
    dead_letter(small_app, client, "person", queue="critical")
    small_app.send_task("kit.job", (), task_id="new", queue="batch", ignore_result=True)
    assert dead_letters.replay(dead_letters.find(small_app), small_app) == Replayed(3, lane_full={"batch": 2})
    assert (queued(client, "batch"), queued(client, "critical")) == (["old-0", "old-1", "new"], ["person"])
    assert sorted(ids_in(client, "dead")) == ["old-2", "old-3"]
    scripts = ScriptClient(client)
    for held in scripts.claim(10):
        assert scripts.ack(held) == 1
    assert dead_letters.replay(dead_letters.find(small_app), small_app) == Replayed(2)


def test_a_job_whose_name_another_has_stays(lanes_app, client):
    """There is one of a name; once the other has ended it may be replayed, and has the name again."""
    headers = {UNIQUE: "report"}
    dead_letter(lanes_app, client, "old", headers=headers)
    lanes_app.send_task("kit.job", (), task_id="new", queue="batch", headers=headers, ignore_result=True)
    assert dead_letters.replay(["old"], lanes_app) == Replayed(name_taken=1)
    scripts = ScriptClient(client)
    (held,) = scripts.claim()
    assert scripts.ack(held) == 1
    assert dead_letters.replay(["old"], lanes_app) == Replayed(1)
    assert client.get("lanes:unique:kit.job:0::report") == b"old"


def test_a_death_that_nobody_was_told_of_is_told_first(lanes_app, client):
    """A worker that tells of it would have the failure overtake the answer: until then it stays."""
    dead_letter(lanes_app, client, "killer")
    client.zadd("lanes:ended", {"killer": 1})
    assert len(TAKE_ENDED.run(client, (), ("", 20, 60_000))) == 1
    assert dead_letters.replay(["killer"], lanes_app) == Replayed(untold=1)
    assert dead_letters.purge(["killer"], lanes_app) == Purged(0, 0, 1)
    client.zrem("lanes:ended", "killer")
    assert dead_letters.replay(["killer"], lanes_app) == Replayed(1)


def test_who_dies_while_he_replays_loses_nothing(lanes_app, client):
    """What he had in hand is back in its line once his lease is over, and is no dead letter any more."""
    dead_letter(lanes_app, client, "one")
    assert REPLAY.run(client, (), ("", "killed:1", "", 60, 60, 0, "one")) == [b"done"]
    assert (ids_in(client, "leases"), ids_in(client, "dead"), total(client, "batch:dead")) == (["one"], [], 0)
    assert wait_until(lambda: ScriptClient(client).names(lease_ms=1), "it is back", SOON_S) == ["one"]


def test_two_who_replay_at_once_put_a_job_back_once(lanes_app, client):
    """Each letter is replayed by one of them, and is gone for the others."""
    dead_before(lanes_app, client, 500, 60_000)
    letters, done, together = dead_letters.find(lanes_app), list[Replayed](), threading.Barrier(4)

    def replay() -> None:
        together.wait()
        done.append(dead_letters.replay(letters, lanes_app))

    threads = [threading.Thread(target=replay) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(each.replayed for each in done) == 500
    assert sum(each.gone for each in done) == 1_500
    assert len(queued(client, "batch")) == len(set(queued(client, "batch"))) == 500
    assert ScriptClient(client).places("batch") == 500
    assert (total(client, "batch:dead"), client.zcard("lanes:leases")) == (0, 0)


def test_ten_thousand_go_in_small_steps(lanes_app, client):
    """However many are found, replayed and purged, no script takes more than fifty of them."""
    dead_before(lanes_app, client, MOST, 60_000)
    seen: list[tuple[int, int]] = []
    letters = dead_letters.find(lanes_app, progress=lambda *words: seen.append(words))
    assert (len(letters), seen[0], seen[-1]) == (MOST, (50, MOST), (MOST, MOST))
    some, others = letters[:1_000], letters[1_000:]
    before = scripts_run(client)
    assert dead_letters.purge(others, lanes_app) == Purged(9_000, 0, 0)
    assert scripts_run(client) - before >= 9_000 / 50
    seen.clear()
    assert dead_letters.replay(some, lanes_app, lambda *words: seen.append(words)) == Replayed(1_000)
    assert (seen[-1], len(seen)) == ((1_000, 1_000), 50)
    assert ScriptClient(client).places("batch") == client.hlen("lanes:jobs") == client.hlen("lanes:texts") == 1_000
    assert total(client, "batch:dead") == total(client, "bytes") == 0


def scripts_run(client: Redis) -> int:
    """Return how many scripts the server has run."""
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))

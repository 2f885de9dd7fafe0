"""The scheduler's records, as they are in Redis: for tests that look where a job is and what is known of it."""

import json
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from redis import Redis

JOBS = "lanes:jobs"

_SOURCE = files("celery_app.scheduler").joinpath("scripts/lib/jobs.lua").read_text("utf-8")
_FACTS = re.findall(r"'(\w+)'", _SOURCE.split("local FACTS = {")[1].split("}")[0])

#: Bytes of a text need not be UTF-8, facts are.
_UNPACKED = "return cjson.encode(cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1])))"


def facts(redis: Redis, job_id: str) -> dict[str, Any]:
    """Return what the scheduler knows of a job, by the names in ``scheduler/scripts/lib/jobs.lua``."""
    packed: Any = redis.eval(_UNPACKED, 1, JOBS, job_id)
    return dict(zip(_FACTS, json.loads(packed), strict=False))  # the last ones are left out where they say nothing


def all_facts(redis: Redis) -> dict[str, dict[str, Any]]:
    """Return the same of every job there is, by its id."""
    ids: Any = redis.hkeys(JOBS)
    return {job_id.decode(): facts(redis, job_id.decode()) for job_id in ids}


def ids_in(redis: Redis, place: str) -> list[str]:
    """Return the jobs in one of the scheduler's sorted sets: ``scheduled``, ``leases``, ``dead``, ``ended``."""
    return _decoded(redis.zrange(f"lanes:{place}", 0, -1))


def queued(redis: Redis, lane: str) -> list[str]:
    """Return the jobs in a lane's lines, each line in its order."""
    lines = sorted(redis.scan_iter(f"lanes:line:{lane}:*"))
    return [job_id for line in lines for job_id in _decoded(redis.zrange(line, 0, -1))]


def reasons(redis: Redis) -> dict[str, str]:
    """Return why each dead letter is one, by its id."""
    return {job_id: facts(redis, job_id)["reason"] for job_id in ids_in(redis, "dead")}


def _decoded(found: Any) -> list[str]:
    names: Iterable[bytes] = found
    return [name.decode() for name in names]

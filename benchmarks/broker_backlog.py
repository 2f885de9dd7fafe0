"""How long a critical job waits with 1,000 and with 1,000,000 jobs queued in batch."""

from __future__ import annotations

import statistics
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.bench import bench_broker, main, percentiles
from kit.broker import Broker

from celery_app.broker.packet import Packet
from celery_app.scheduler.scripts import PUBLISH_MANY

if TYPE_CHECKING:
    import argparse

SLOTS, EVERY_S = 20, 0.02
CHUNK = 500
LANE = "batch"


def template(broker: Broker) -> Packet:
    """Return a batch job of 20 ms, as it goes into the lane."""
    job = broker.send("kit.nap", EVERY_S, argsrepr="", kwargsrepr="", ignore_result=True)
    text = broker.client.hget("lanes:texts", job.id)
    broker.client.flushdb()
    return Packet(job.id, text, 6, {"task": "kit.nap", "id": job.id}, "", 0.0)


def fill(broker: Broker, job: Packet, jobs: int) -> None:
    """Queue batch jobs until there are so many."""
    missing = jobs - broker.scripts().places(LANE)
    for n in range(0, missing, CHUNK):
        ids = [uuid.uuid4().hex for _ in range(min(CHUNK, missing - n))]
        texts = [job.text.replace(job.id.encode(), id_.encode()) for id_ in ids]
        headers = [{**job.headers, "id": id_} for id_ in ids]
        packets = [
            job._replace(id=id_, text=text, headers=head) for id_, text, head in zip(ids, texts, headers, strict=True)
        ]
        facts = [part for packet in packets for part in packet.arguments()]
        PUBLISH_MANY.run(broker.client, (), ("", LANE, 2 * jobs, f"batch:{ids[0]}", 60, 0, *facts))


def waits_ms(broker: Broker, name: str, jobs: int) -> list[float]:
    """Return how long critical jobs wait that come one by one while all slots work on batch."""
    sent: dict[str, float] = {}
    for n in range(jobs):
        job = f"{name}-{n}"
        sent[job] = time.time()
        broker.send("kit.job", job, queue="critical", ignore_result=True)
        time.sleep(EVERY_S)
    broker.event_log.wait_for("end", sent, 60)
    return [(entry.at - sent[entry.job]) * 1000 for entry in broker.event_log.read("start") if entry.job in sent]


def measure(arguments: argparse.Namespace) -> Any:
    """Return the waits with a short and a long backlog, measured in turns."""
    few, many = 1_000, arguments.backlog
    waits: dict[int, list[float]] = {few: [], many: []}
    medians: dict[int, list[float]] = {few: [], many: []}
    with (
        bench_broker() as broker,
        Broker(broker.folder, f"{broker.broker_url.rpartition('/')[0]}/2", broker.event_log_url) as other,
    ):
        brokers = {few: broker, many: other}
        jobs = {backlog: template(each) for backlog, each in brokers.items()}
        for turn in range(arguments.turns):
            for backlog, each in brokers.items():
                fill(each, jobs[backlog], backlog)
                worker = each.worker(f"w-{turn}-{backlog}", slots=SLOTS, queues="critical,batch")
                # A short backlog would be empty too soon: it is filled up as it is worked on.
                got: list[float] = []
                for part in range(arguments.jobs // 25):
                    got += waits_ms(each, f"{turn}-{backlog}-{part}", 25)
                    if backlog == few:
                        fill(each, jobs[backlog], few)
                waits[backlog] += got
                medians[backlog].append(statistics.median(got))
                worker.kill()
        memory = other.client.info("memory")["used_memory"] / many
    rows = {str(backlog): percentiles(values) for backlog, values in waits.items()}
    # Of several turns' medians the least is the one that nothing else on the machine disturbed.
    ratio = min(medians[many]) / min(medians[few])
    return {"wait_ms": rows, "ratio": round(ratio, 3), "bytes_per_job": round(memory)}


def say(figures: Any) -> str:
    """Return a line per backlog."""
    lines = [
        f"{int(backlog):,} jobs in batch: a critical job waits {row['p50']} ms (p95 {row['p95']}, max {row['max']})"
        for backlog, row in figures["wait_ms"].items()
    ]
    ratio = f"ratio of the least medians: {figures['ratio']}; {figures['bytes_per_job']} bytes a job"
    return "\n".join([*lines, ratio])


if __name__ == "__main__":
    main(__doc__, measure, say, backlog=1_000_000, jobs=200, turns=3)

"""What a worker costs that has nothing to do: processor time, and commands to the broker."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.bench import bench_broker, main

if TYPE_CHECKING:
    import argparse

    from kit.broker import Broker


def cpu_seconds(pid: int) -> float:
    """Return what a process has used since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


#: What clients send to a server that nobody publishes to; anything else in the statistics ran within scripts.
SENT = ("evalsha", "eval", "brpop", "publish", "ping", "psubscribe", "auth", "select", "hello", "client|setinfo")


def commands(broker: Broker) -> tuple[int, int]:
    """Return the commands that clients have sent, and those that the server has run, with those within scripts."""
    stats = broker.client.info("commandstats")
    sent = sum(int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in SENT)
    return sent, int(broker.client.info("stats")["total_commands_processed"])


def measure(arguments: argparse.Namespace) -> Any:
    """Return per cent of a core, and commands per second."""
    with bench_broker() as broker:
        worker = broker.worker(slots=20, options=())
        # The first job starts the leases' thread, which then is idle, too.
        broker.send("kit.job", 1, ignore_result=True)
        broker.event_log.wait_for("end", [1], 30)
        time.sleep(3)
        cpu, (sent, run), start = cpu_seconds(worker.process.pid), commands(broker), time.monotonic()
        time.sleep(arguments.seconds)
        seconds = time.monotonic() - start
        sent_then, run_then = commands(broker)
        used = cpu_seconds(worker.process.pid) - cpu
    return {
        "cpu_percent": round(100 * used / seconds, 2),
        "commands_per_s": round((sent_then - sent) / seconds, 1),
        "commands_in_scripts_too_per_s": round((run_then - run) / seconds, 1),
        "seconds": round(seconds, 1),
    }


def say(figures: Any) -> str:
    """Return a line."""
    return (
        f"an idle worker: {figures['cpu_percent']} % of a core, {figures['commands_per_s']} commands/s "
        f"({figures['commands_in_scripts_too_per_s']} with those within scripts), over {figures['seconds']} s"
    )


if __name__ == "__main__":
    main(__doc__, measure, say, seconds=20)

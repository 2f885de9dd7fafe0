"""One of several publishers that race for the places in a lane: ``python -m kit.publisher LANE JOBS``."""

import json
import sys

from celery_app import app
from celery_app.errors import LaneFull


def main(lane: str, jobs: int) -> None:
    """Wait for a line on standard input, publish, and print how many jobs found a place and how many did not."""
    app.connection_for_write().ensure_connection(max_retries=1).release()
    print("ready", flush=True)  # noqa: T201 - how the test hears of it
    sys.stdin.readline()
    placed = refused = 0
    for n in range(jobs):
        try:
            app.send_task("kit.job", (n,), queue=lane, ignore_result=True)
            placed += 1
        except LaneFull:
            refused += 1
    print(json.dumps({"placed": placed, "refused": refused}), flush=True)  # noqa: T201 - likewise


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""The round trips to Redis of one job from submission to its end: what clients send, by the server's own MONITOR."""

from __future__ import annotations

import argparse
import collections
import json
import threading
from typing import Any

from redis import Redis
from rig import Rig

JOBS = 50


def watched(client: Redis, counts: collections.Counter[str], over: threading.Event) -> None:
    """Count the commands that clients send until it is over."""
    from celery_app.scheduler import scripts

    names = {script.sha: f"{script.name}.lua" for script in vars(scripts).values() if hasattr(script, "sha")}
    with client.monitor() as monitor:
        for told in monitor.listen():
            if over.is_set():
                return
            if told["client_type"] != "lua":
                words = told["command"].split()
                name = words[0].upper()
                counts[names.get(words[1], "EVALSHA") if name == "EVALSHA" else name] += 1


def main() -> None:
    """Run the jobs one after the other, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with Rig("--latency", "0.05") as rig:
        rig.worker("w", "-Q", "critical,normal,batch", "-c", "1")
        import os

        os.environ.update(rig.environment)
        from celery_app import create_app
        from tasks import create_message

        app = create_app()
        create_message.bind(app)
        counts: collections.Counter[str] = collections.Counter()
        over = threading.Event()

        def run(number: int) -> None:
            for _ in range(number):
                task = app.tasks["tasks.create_message"]
                params: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
                task.apply_async(kwargs=params, queue="batch").get(timeout=30)

        run(5)
        client = Redis.from_url(os.environ["CELERY_BROKER_URL"])
        thread = threading.Thread(target=watched, args=(client, counts, over), daemon=True)
        thread.start()
        run(JOBS)
        over.set()
    table = {name: round(count / JOBS, 2) for name, count in counts.most_common()}
    print(json.dumps(table) if options.json else "\n".join(f"{name:14} {each}" for name, each in table.items()))


if __name__ == "__main__":
    main()

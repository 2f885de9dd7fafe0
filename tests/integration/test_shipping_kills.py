"""A worker killed at the worst moment of a shipment: another one goes on with it."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kit.client_rig import params
from kit.shipping_rig import SHIPPED_WITHIN, shipping_rig, texts_of
from kit.waiting import wait_until

from demo.simulator import Behaviour

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

DB = 10


@contextmanager
def mute_about_batches(api: str) -> Iterator[str]:
    """Stand in front of an API, and never pass on what it says to the creation of a batch."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)) or None
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            asked = urllib.request.Request(f"{api}{self.path}", body, headers, method=self.command)  # noqa: S310
            try:
                with urllib.request.urlopen(asked) as answer:  # noqa: S310
                    status, said = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, said = error.code, error.read()
            if self.command == "POST" and self.path == "/v1/messages/batches":
                over.wait(SHIPPED_WITHIN)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_POST = do_GET  # noqa: N815 - the name is the library's

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()
            thread.join()


def test_a_batch_that_nobody_noted_is_adopted(valkey, tmp_path):
    """Killed between creating a batch and noting it, its successor finds it again: one batch, no call, all answers."""
    with shipping_rig(valkey, DB, tmp_path, Behaviour(batch_latency=1)) as rig, mute_about_batches(rig.api.url) as url:
        with rig.worker(EZAI_BASE_URL=url) as first:
            jobs = [rig.client.submit(lane="batch", **params(f"job {number}")) for number in range(20)]
            rig.wait_for_batches()
            first.kill()
        with rig.worker():
            assert texts_of(jobs) == [f"You said: job {number}" for number in range(20)]
            rig.wait_until_over()
        assert len(rig.batches()) == 1
        assert rig.live() == 0


def test_a_worker_killed_while_answers_come_in_loses_none(valkey, tmp_path):
    """Another one reads the results again, and no job is run that has ended: each has one answer, none makes a call."""
    with shipping_rig(valkey, DB, tmp_path) as rig:
        with rig.worker() as first:
            many = rig.client.submit_many([params(f"item {number}") for number in range(3_000)], lane="batch")
            wait_until(lambda: many.counts().done > 100, "the first answers", SHIPPED_WITHIN)
            first.kill()
        with rig.worker():
            results = list(many.results(patience=SHIPPED_WITHIN))
            rig.wait_until_over()
        assert sorted(each.index for each in results) == list(range(3_000))
        assert all(each.message for each in results)
        assert rig.live() == 0
        assert sum(batch["request_counts"]["succeeded"] for batch in rig.batches()) == 3_000


def test_what_is_aboard_is_brought_in_by_workers_that_ship_no_more(valkey, tmp_path):
    """Who takes the setting away in trouble gets the answers that were paid for, and no job is kept for ever."""
    with shipping_rig(valkey, DB, tmp_path, Behaviour(batch_latency=8.0)) as rig:
        with rig.worker():
            job = rig.client.submit(lane="batch", **params("aboard"))
            noted = lambda: any(rig.redis.hget(key, "batch") for key in rig.redis.keys("lanes:shipment:*[^s]"))  # noqa: E731
            wait_until(noted, "it is shipped", SHIPPED_WITHIN)
        with rig.worker(LANES_BATCH_MESSAGE_BATCHES="off"):
            assert texts_of([job]) == ["You said: aboard"]
            rig.wait_until_over()
        assert rig.live() == 0

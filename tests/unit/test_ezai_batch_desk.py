import asyncio
import json

import pytest

from demo.simulator import ApiLimits, Behaviour, Simulator
from demo.simulator.batch_desk import MAX_BYTES, BatchDesk
from demo.simulator.batch_requests import MAX_REQUESTS, read_requests
from demo.simulator.faults import SimulatedError


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (bytes(MAX_BYTES + 1), 413, "size"),
        (
            json.dumps({"requests": [{"custom_id": str(n), "params": {}} for n in range(MAX_REQUESTS + 1)]}).encode(),
            400,
            "100000",
        ),
        *(
            (body, 400, "read")
            for body in (b"", b"{", b"[]", b'{"requests": [{}', b'{"requests": [{"custom_id": "a", "params": {}},]}')
        ),
        *((body, 400, "read") for body in (b'{"requests": []}}', b'{"requests": [5]}', b'{"requests": [], "more": 1}')),
    ],
)
def test_a_batch_has_the_limits_of_the_api(body, status, told):
    """More than 256 MB or 100,000 requests, or what is no JSON, is refused."""
    with pytest.raises(SimulatedError) as caught:
        asyncio.run(BatchDesk(Simulator(Behaviour(), ApiLimits())).create("key", body))
    assert caught.value.status_code == status
    assert told in caught.value.message


@pytest.mark.parametrize("indent", [None, 2])
def test_requests_are_read_whatever_the_spaces(indent):
    """Each request comes as its own JSON, brackets and commas in its texts included."""
    requests = [{"custom_id": f"job-{n}", "params": {"text": ']},{"\u00e9'}} for n in range(3)]
    read = asyncio.run(read_requests(json.dumps({"requests": requests}, indent=indent).encode()))
    assert [json.loads(text) for text in read.values()] == requests
    assert list(read) == ["job-0", "job-1", "job-2"]

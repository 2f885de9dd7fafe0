import json

import pytest

from demo.simulator import ApiLimits, Behaviour, Simulator
from demo.simulator.batch_desk import MAX_BYTES, MAX_REQUESTS, BatchDesk
from demo.simulator.faults import SimulatedError


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (bytes(MAX_BYTES + 1), 413, "size"),
        (json.dumps({"requests": [{}] * (MAX_REQUESTS + 1)}).encode(), 400, "100000"),
        (b"{", 400, "read"),
    ],
)
def test_a_batch_has_the_limits_of_the_api(body, status, told):
    """More than 256 MB or 100,000 requests, or what is no JSON, is refused."""
    with pytest.raises(SimulatedError) as caught:
        BatchDesk(Simulator(Behaviour(), ApiLimits())).create("key", body)
    assert caught.value.status_code == status
    assert told in caught.value.message

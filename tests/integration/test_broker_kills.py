from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from broker_kit import kills
from broker_kit.server import Server
from broker_kit.yard import Yard

if TYPE_CHECKING:
    from pathlib import Path

#: The long run's numbers are in tests/acceptance/test_broker_proofs.py; here leases last 2 s instead of 15.
PLAN = kills.Plan(jobs=1_500, kills=3, pause=(0.5, 1.0), slots=10, app="broker_kit.hasty", patience=15.0)


@pytest.mark.timeout(200)
@pytest.mark.slow
def test_no_job_is_lost_when_workers_are_killed(tmp_path: Path, valkey: Any) -> None:
    """Workers under load are killed in turn: every job ends, and those of a killed worker start again."""
    with Server(tmp_path / "server", durable=False) as server, Yard(tmp_path, server.url, valkey.url(15)) as yard:
        outcome = kills.run(yard, PLAN)
        print(outcome)  # noqa: T201 - shown when it fails
        assert outcome.lost == []
        assert outcome.never_back == 0
        assert outcome.dead == 0
        assert outcome.in_flight_killed > 0

"""The pytest fixture of ezai-lanes, known to pytest wherever the package is installed.

pytest loads this in every project of the environment, so it imports nothing of ours, and nothing else, until the
fixture is asked for; and it stands beside `celery_app`, whose import would bring Celery along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_app.testing import Lanes


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    """Answer calls in this process: no broker, no worker, no API; see `celery_app.testing.Lanes`."""
    from celery_app.testing import in_process

    with in_process() as stand_in:
        yield stand_in

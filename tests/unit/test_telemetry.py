"""What the SDK traces of our calls holds no prompt, whatever the environment asks for; `test_secrets` has the rest."""

from __future__ import annotations

import pytest

from tasks.clients import client_for
from tasks.loop import close_loop


@pytest.mark.parametrize(
    ("variable", "value", "enabled", "propagation"),
    [
        ("ANTHROPIC_OPEN_TELEMETRY", "False", False, True),
        ("ANTHROPIC_OPEN_TELEMETRY_PROPAGATION", "false", True, False),
        ("ANTHROPIC_OPEN_TELEMETRY_TRACES_CONTENT_MODE", "CONTENT", True, True),
    ],
)
def test_what_the_environment_switches_off_stays_off(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, enabled: bool, propagation: bool
) -> None:
    """Content is the only thing that it cannot have."""
    monkeypatch.setenv(variable, value)
    close_loop()
    options = client_for("k", "http://127.0.0.1:9").open_telemetry
    close_loop()

    assert options["traces"]["content_mode"] == "metadata_only"
    assert (options["traces"]["enabled"], options["propagation"]) == (enabled, propagation)

from __future__ import annotations

import dataclasses
import json

import pytest

from celery_app.errors import InvalidSettings
from celery_app.lanes import BATCH, CRITICAL, LANES
from celery_app.settings import DEFAULT_BROKER_URL, Limits, Settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test without any variable of ours."""
    import os

    for name in list(os.environ):
        if name.startswith(("EZAI_", "LANES_", "CELERY_")):
            monkeypatch.delenv(name)


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    """Nothing has to be set but a key."""
    settings = Settings.from_environment()

    assert settings.broker_url == settings.result_backend == DEFAULT_BROKER_URL
    assert settings.lanes == LANES
    assert settings.api_key(CRITICAL) is None


def test_a_variable_overrides_one_field_of_one_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """LANES_<LANE>_<FIELD> changes that field and nothing else, even where the field's name has an underscore."""
    monkeypatch.setenv("LANES_BATCH_SUBMIT_WAIT", "1.5")
    monkeypatch.setenv("LANES_CRITICAL_DEADLINE", "none")

    settings = Settings.from_environment()

    assert settings.lane("batch") == dataclasses.replace(BATCH, submit_wait=1.5)
    assert settings.lane("critical") == dataclasses.replace(CRITICAL, deadline=None)


def test_a_lanes_own_key_wins_over_the_common_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane with a key of its own uses it, the others share the common one."""
    monkeypatch.setenv("EZAI_API_KEY", "common")
    monkeypatch.setenv("EZAI_API_KEY_BATCH", "own")

    settings = Settings.from_environment()

    assert settings.api_key(BATCH) == "own"
    assert settings.api_key(CRITICAL) == "common"


def test_limits_are_read_for_all_models_and_for_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    """EZAI_RPM speaks for every model, EZAI_LIMITS for those that match a pattern."""
    monkeypatch.setenv("EZAI_RPM", "1200")
    monkeypatch.setenv("EZAI_LIMITS", json.dumps({"*haiku*": {"itpm": 100_000}}))

    settings = Settings.from_environment()

    assert settings.limits == Limits(rpm=1200)
    assert settings.model_limits == {"*haiku*": Limits(itpm=100_000)}


def test_every_problem_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets five variables wrongly learns of five, each by its variable's name."""
    wrong = {
        "CELERY_BROKER_URL": "amqp://localhost",
        "EZAI_RPM": "many",
        "EZAI_API_KEY_BATCH": "two words",
        "LANES_BATCH_FLOOR": "1.5",
        "LANES_NORMAL_ATTEMPTS": "0",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(InvalidSettings) as caught:
        Settings.from_environment()

    assert [name for name in wrong if name not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("EZAI_APIKEY", "EZAI_API_KEY"),
        ("LANES_BATCH_CAPASITY", "LANES_BATCH_CAPACITY"),
        ("LANES_CRITCAL_FLOOR", "LANES_CRITICAL_FLOOR"),
        ("LANES_BATCH_PRIORITY", "LANES_BATCH_"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_known(
    name: str, nearest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typo in a variable's name is an error, not a setting that silently does nothing."""
    monkeypatch.setenv(name, "1")

    with pytest.raises(InvalidSettings, match=rf"{name} is unknown, did you mean {nearest}"):
        Settings.from_environment()


def test_a_key_shows_in_no_error_and_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a wrong key nor a right one is ever printed."""
    monkeypatch.setenv("EZAI_API_KEY", "sk-very secret")
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_environment()
    assert "secret" not in str(caught.value)

    monkeypatch.setenv("EZAI_API_KEY", "sk-secret")
    assert "sk-secret" not in repr(Settings.from_environment())


@pytest.mark.parametrize(
    "url", ["redis://localhost:x/0", "localhost:6379", "redis://localhost/zero", "redis://localhost:99999/0"]
)
def test_a_wrong_broker_url_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that leads nowhere is found at the start and not on the first job."""
    monkeypatch.setenv("CELERY_BROKER_URL", url)

    with pytest.raises(InvalidSettings, match="CELERY_BROKER_URL"):
        Settings.from_environment()


def test_broken_json_in_limits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """EZAI_LIMITS that is no JSON is reported under its name."""
    monkeypatch.setenv("EZAI_LIMITS", "{haiku: 3}")

    with pytest.raises(InvalidSettings, match="EZAI_LIMITS"):
        Settings.from_environment()


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compose file may hand over variables that nobody set."""
    monkeypatch.setenv("EZAI_RPM", "")

    assert Settings.from_environment().limits.rpm is None

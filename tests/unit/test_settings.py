import json
import os
import re

import pytest

from celery_app.configuration.variables import paths
from celery_app.errors import InvalidSettings
from celery_app.lanes import BATCH, CRITICAL, LANES
from celery_app.settings import DEFAULT_BROKER_URL, Limits, Settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Start each test without any variable of ours."""
    for name in list(os.environ):
        if name.startswith(("EZAI_", "LANES_", "CELERY_")):
            monkeypatch.delenv(name)


def test_an_empty_environment_gives_the_documented_defaults():
    """Nothing has to be set but a key."""
    settings = Settings.from_environment()

    assert settings.broker_url == settings.result_backend == DEFAULT_BROKER_URL
    assert settings.lanes == LANES
    assert settings.api_key(CRITICAL) is None


def test_a_lanes_own_key_wins_over_the_common_one(monkeypatch):
    """A lane with a key of its own uses it, the others share the common one."""
    monkeypatch.setenv("EZAI_API_KEY", "common")
    monkeypatch.setenv("EZAI_API_KEY_BATCH", "own")

    settings = Settings.from_environment()

    assert settings.api_key(BATCH) == "own"
    assert settings.api_key(CRITICAL) == "common"


def test_limits_are_read_for_all_models_and_for_patterns(monkeypatch):
    """EZAI_RPM speaks for every model, EZAI_LIMITS for those that match a pattern."""
    monkeypatch.setenv("EZAI_RPM", "1200")
    monkeypatch.setenv("EZAI_LIMITS", json.dumps({"*haiku*": {"itpm": 100_000}}))

    settings = Settings.from_environment()

    assert settings.limits == Limits(rpm=1200)
    assert settings.model_limits == {"*haiku*": Limits(itpm=100_000)}


def test_every_problem_is_reported_at_once(monkeypatch):
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
def test_an_unknown_variable_is_refused_with_the_nearest_known(name, nearest, monkeypatch):
    """A typo in a variable's name is an error, not a setting that silently does nothing."""
    monkeypatch.setenv(name, "1")

    with pytest.raises(InvalidSettings, match=rf"{name} is unknown, did you mean {nearest}"):
        Settings.from_environment()


def test_a_key_shows_in_no_error_and_no_repr(monkeypatch):
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
def test_a_wrong_broker_url_is_refused(url, monkeypatch):
    """A URL that leads nowhere is found at the start and not on the first job."""
    monkeypatch.setenv("CELERY_BROKER_URL", url)

    with pytest.raises(InvalidSettings, match="CELERY_BROKER_URL"):
        Settings.from_environment()


def test_broken_json_in_limits_is_named(monkeypatch):
    """EZAI_LIMITS that is no JSON is reported under its name."""
    monkeypatch.setenv("EZAI_LIMITS", "{haiku: 3}")

    with pytest.raises(InvalidSettings, match="EZAI_LIMITS"):
        Settings.from_environment()


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    """A compose file may hand over variables that nobody set."""
    monkeypatch.setenv("EZAI_RPM", "")

    assert Settings.from_environment().limits.rpm is None


#: What Kubernetes tells a pod of Services named `lanes`, `ezai`, `lanes-critical` and so on.
SERVICES = ("LANES", "EZAI", "LANES_CRITICAL", "LANES_BATCH_CAPACITY", "EZAI_GATEWAY", "EZAI_API_KEY_2")
TOLD = {
    "SERVICE_HOST": "10.96.0.10",
    "SERVICE_PORT": "6379",
    "SERVICE_PORT_HTTP": "6379",
    "SERVICE_PORT_HTTP_METRICS": "9121",
    "PORT": "tcp://10.96.0.10:6379",
    "PORT_6379_TCP": "tcp://10.96.0.10:6379",
    "PORT_6379_TCP_ADDR": "10.96.0.10",
    "PORT_6379_TCP_PORT": "6379",
    "PORT_6379_TCP_PROTO": "tcp",
    "PORT_53_UDP": "udp://10.96.0.10:53",
    "PORT_53_UDP_PROTO": "udp",
    "PORT_132_SCTP_ADDR": "10.96.0.10",
}


@pytest.mark.parametrize("service", SERVICES)
def test_what_kubernetes_says_of_a_service_is_passed_over(service, monkeypatch):
    """A Service may have our name, or a name that begins with it, and every pod hears of it."""
    before = Settings.from_environment()
    for name, value in TOLD.items():
        monkeypatch.setenv(f"{service}_{name}", value)

    assert Settings.from_environment() == before


@pytest.mark.parametrize(
    "name",
    ["EZAI_TEAM_DASHBOARD_URL", "LANES_OF_TRAFFIC", "EZAI_MODEL", "LANES_IMAGE", "EZAI_LOG_LEVEL", "LANES_ENABLED"],
)
def test_a_name_that_is_near_none_of_ours_is_somebody_elses(name, monkeypatch):
    """A team may call its own variables as it likes."""
    before = Settings.from_environment()
    monkeypatch.setenv(name, "3")

    assert Settings.from_environment() == before


def test_any_one_slip_in_a_name_of_ours_is_refused(monkeypatch):
    """A letter that is missing, doubled, wrong or in its neighbour's place never makes a name somebody else's."""
    for name in paths():
        prefix = name.index("_") + 1
        for at in range(prefix, len(name)):
            slips = {
                name[:at] + name[at + 1 :],
                name[:at] + name[at] + name[at:],
                name[:at] + "X" + name[at + 1 :],
                name[:at] + name[at + 1 : at + 2] + name[at] + name[at + 2 :],
            }
            for slip in slips - {*paths()}:
                monkeypatch.setenv(slip, "1")
                with pytest.raises(
                    InvalidSettings, match=rf"^Invalid settings: {slip} is unknown, did you mean \w+\?$"
                ):
                    Settings.from_environment()
                monkeypatch.delenv(slip)


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/messages", "/v1/messages/", "//v1//"])
@pytest.mark.parametrize("root", ["https://ezaiapi.com", "http://127.0.0.1:8080", "https://gateway/anthropic"])
def test_a_base_url_is_understood_with_and_without_its_version(root, end, monkeypatch):
    """The SDK appends /v1/messages by itself, and most gateways' pages show the URL with /v1."""
    monkeypatch.setenv("EZAI_BASE_URL", f"{root}{end}")

    assert Settings.from_environment().base_url == root


@pytest.mark.parametrize("url", ["https://ezaiapi.com/v1beta", "https://v1", "https://host/dev1"])
def test_a_base_url_that_only_looks_like_a_version_stays(url, monkeypatch):
    """Only the SDK's own path is taken off."""
    monkeypatch.setenv("EZAI_BASE_URL", url)

    assert Settings.from_environment().base_url == url


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("amqp://user:secret@mq//", r"amqp:// \(RabbitMQ\)"),
        ("amqps://user:secret@mq//", r"amqps:// \(RabbitMQ\)"),
        ("pyamqp://user:secret@mq//", r"pyamqp:// \(RabbitMQ\)"),
        ("AMQP://user:secret@mq//", r"amqp:// \(RabbitMQ\)"),
        ("sqs://key:secret@", r"sqs:// \(SQS\)"),
        ("gcpubsub://projects/secret", "gcpubsub://"),
        ("confluentkafka://secret:9092", "confluentkafka://"),
        ("filesystem://secret", "filesystem://"),
        ("sqla+sqlite:///secret.db", r"sqla\+sqlite://"),
        ("mongodb://secret/db", "mongodb://"),
        ("redis://a/1;amqp://u:secret@mq", r"amqp:// \(RabbitMQ\)"),
    ],
)
def test_another_broker_is_told_in_one_line_what_to_do(url, name, monkeypatch):
    """Whoever runs Celery on something else reads that the lanes need Redis or Valkey, and how that is written."""
    monkeypatch.setenv("CELERY_BROKER_URL", url)

    with pytest.raises(InvalidSettings) as caught:
        Settings.from_environment()

    told = str(caught.value)
    assert re.search(rf"CELERY_BROKER_URL: the lanes need Redis or Valkey and cannot use {name}; .*redis://", told)
    assert "secret" not in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "url", ["hunter2:6379", "redis://:hunter2/x@host:6379/0", "hunter2://host", "redis://h/hunter2"]
)
def test_what_may_be_a_password_is_not_repeated(url, monkeypatch):
    """A URL that is wrong may have its password anywhere."""
    monkeypatch.setenv("CELERY_BROKER_URL", url)

    with pytest.raises(InvalidSettings) as caught:
        Settings.from_environment()

    assert "hunter2" not in str(caught.value)


def test_a_broker_in_memory_is_refused_only_by_who_needs_it(monkeypatch):
    """Eager tests send nothing, so they may name memory://; its settings are derived, its results stay in memory."""
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")

    settings = Settings.from_environment()

    assert settings.result_backend == "cache+memory://"
    with pytest.raises(InvalidSettings, match="the lanes need Redis or Valkey, as in redis://"):
        settings.check_broker()


def test_who_named_broker_and_backend_is_known(monkeypatch):
    """The defaults are told from what somebody chose, even where both are the same."""
    settings = Settings.from_environment()
    assert (settings.has_own_broker, settings.has_own_backend) == (False, False)

    monkeypatch.setenv("CELERY_BROKER_URL", DEFAULT_BROKER_URL)
    monkeypatch.setenv("CELERY_RESULT_BACKEND", DEFAULT_BROKER_URL)
    named = Settings.from_environment()
    assert (named.has_own_broker, named.has_own_backend) == (True, True)
    assert (named.broker_url, named.result_backend) == (settings.broker_url, settings.result_backend)

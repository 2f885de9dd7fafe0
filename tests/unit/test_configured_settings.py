"""Settings out of Celery's configuration, in every form in which Celery takes it."""

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from django.conf import LazySettings, Settings as DjangoSettings, UserSettingsHolder
from flask import Flask

from celery_app import install
from celery_app.errors import InvalidSettings
from celery_app.lanes import BATCH, CRITICAL
from celery_app.settings import Limits, Settings, settings_of

#: What each of the forms below says.
PLAIN = {
    "broker_url": "redis://configured:6379/1",
    "result_backend": "django-db",
    "lanes_batch_capacity": 500,
    "lanes_critical_deadline": None,
    "lanes": {"normal": {"attempts": 2}, "batch": {"capacity": 7}},
    "ezai_api_key": "the-key",
    "ezai_limits": {"*haiku*": {"rpm": 1200}},
    "ezai_rpm": "60",
}
UPPER = {f"CELERY_{key.upper()}": value for key, value in PLAIN.items()}
LOWER = {f"celery_{key}": value for key, value in PLAIN.items()}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Start each test without any variable of ours."""
    for name in list(os.environ):
        if name.startswith(("EZAI_", "LANES_", "CELERY_")):
            monkeypatch.delenv(name)
    # What the lanes do with a configuration is not the question here, and would look for its result backend.
    monkeypatch.setattr(sys.modules["celery_app.app"], "configure", lambda *_: None, raising=False)


@pytest.fixture
def module(monkeypatch):
    """Make a module that can be imported as `proj_settings`."""

    def make(values: dict[str, Any]) -> ModuleType:
        made = ModuleType("proj_settings")
        vars(made).update(values)
        monkeypatch.setitem(sys.modules, "proj_settings", made)
        return made

    return make  # type: ignore[return-value]


def application(config: Any = None, namespace: str | None = None) -> Celery:
    """Return a project's application with lanes; configured from an object, if there is one."""
    app = Celery("proj", set_as_current=False, fixups=[])
    if config is not None:
        app.config_from_object(config, namespace=namespace)
    install(app)
    return app


def django(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> LazySettings:
    """Return Django's own settings object over a settings module."""
    made = ModuleType("proj_settings")
    vars(made).update({"SECRET_KEY": "x", "USE_TZ": True, **values})
    monkeypatch.setitem(sys.modules, "proj_settings", made)
    lazy = LazySettings()
    lazy._wrapped = DjangoSettings("proj_settings")
    return lazy


FORMS: dict[str, Callable[[Any, pytest.MonkeyPatch], Celery]] = {
    "dict": lambda _, __: application(dict(PLAIN)),
    "dict with a namespace": lambda _, __: application(dict(UPPER), "CELERY"),
    "dict with a small namespace": lambda _, __: application(dict(LOWER), "celery"),
    "module": lambda module, _: application(module(PLAIN)),
    "module's name": lambda module, _: module(PLAIN) and application("proj_settings"),
    "module with a namespace": lambda module, _: application(module(UPPER), "CELERY"),
    "class": lambda _, __: application(type("Config", (type("Base", (), dict(PLAIN)),), {})),
    "instance": lambda _, __: application(type("Config", (), dict(PLAIN))()),
    "dotted path of a class": lambda module, _: (
        module({"Config": type("C", (), dict(PLAIN))}) and application("proj_settings:Config")
    ),
    "Django's settings": lambda _, patch: application(django(UPPER, patch), "CELERY"),
    "Django's settings without a namespace": lambda _, patch: application(django(UPPER | OLD_BROKER, patch)),
    "Flask's documentation": lambda _, __: application(flask({"CELERY": dict(PLAIN)}).config["CELERY"]),
    "Flask's namespace": lambda _, __: application(flask(UPPER).config.get_namespace("CELERY_")),
    "Flask's whole configuration": lambda _, __: application(flask(UPPER).config, "CELERY"),
    "conf.update": lambda _, __: updated(application()),
    "conf's attributes": lambda _, __: assigned(application()),
    "changes": lambda _, __: with_changes(),
}
#: The old name of Celery's setting, for a configuration without a namespace.
OLD_BROKER = {"BROKER_URL": PLAIN["broker_url"]}


def flask(values: dict[str, Any]) -> Flask:
    """Return a Flask application with a configuration."""
    app = Flask("proj")
    app.config.from_mapping(values)
    return app


def missing(_: object, name: str) -> Any:
    """Have no attribute of that name, as an object that computes some of them."""
    raise AttributeError(name)


def updated(app: Celery) -> Celery:
    """Configure as in ``app.conf.update(…)``."""
    app.conf.update(PLAIN)
    return app


def assigned(app: Celery) -> Celery:
    """Configure as in ``app.conf.lanes_batch_capacity = 500``."""
    for key, value in PLAIN.items():
        setattr(app.conf, key, value)
    return app


def with_changes() -> Celery:
    """Configure where the application is made."""
    app = Celery("proj", set_as_current=False, fixups=[], changes=dict(PLAIN))
    install(app)
    return app


@pytest.fixture(params=FORMS)
def configured(request, module, monkeypatch):
    """An application that has been configured in one of the forms, with the same values in each."""
    return FORMS[request.param](module, monkeypatch)


def test_every_form_of_a_configuration_says_the_same(configured):
    """Native values or text, one by one or in the dict of lanes, wherever Celery looks."""
    settings = settings_of(configured)

    assert settings.broker_url == "redis://configured:6379/1"
    assert (settings.result_backend, settings.has_own_backend) == ("django-db", True)
    assert [lane.capacity for lane in settings.lanes] == [1_000, 10_000, 500]
    assert [lane.attempts for lane in settings.lanes] == [3, 2, 8]
    assert [lane.deadline for lane in settings.lanes] == [None, 300, None]
    assert settings.api_key(CRITICAL) == settings.api_key(BATCH) == "the-key"
    assert (settings.limits, settings.model_limits) == (Limits(rpm=60), {"*haiku*": Limits(rpm=1200)})


def test_the_environment_wins_field_by_field(configured, monkeypatch):
    """One variable more or less changes one field, and a mistake beneath a right variable does not matter."""
    monkeypatch.setenv("LANES_BATCH_CAPACITY", "9")
    monkeypatch.setenv("LANES_CRITICAL_DEADLINE", "12")
    monkeypatch.setenv("EZAI_API_KEY_BATCH", "another")
    monkeypatch.setenv("EZAI_RPM", "")  # as a compose file hands over what nobody set
    monkeypatch.setenv("CELERY_BROKER_URL", "valkey://environment")

    settings = settings_of(configured)

    assert [lane.capacity for lane in settings.lanes] == [1_000, 10_000, 9]
    assert [lane.attempts for lane in settings.lanes] == [3, 2, 8]
    assert [lane.deadline for lane in settings.lanes] == [12, 300, None]
    assert (settings.api_key(CRITICAL), settings.api_key(BATCH)) == ("the-key", "another")
    assert settings.limits.rpm == 60
    assert settings.broker_url == "valkey://environment"
    monkeypatch.delenv("LANES_BATCH_CAPACITY")
    assert [lane.capacity for lane in settings_of(configured).lanes] == [1_000, 10_000, 500]


def test_a_change_after_the_first_look_is_seen(configured, monkeypatch):
    """A conftest that configures late configures, whatever form came first: by update, a variable, a new object."""
    before = settings_of(configured)
    assert settings_of(configured) is before

    configured.conf.update(lanes_batch_capacity=11, broker_url="redis://later")
    changed = settings_of(configured)
    assert (changed.lanes[2].capacity, changed.broker_url) == (11, "redis://later")

    monkeypatch.setenv("CELERY_BROKER_URL", "redis://later-still")
    assert settings_of(configured).broker_url == "redis://later-still"
    monkeypatch.delenv("CELERY_BROKER_URL")

    # Not in any of the forms: what was set on `conf` before it was first read stays above an object, as ever in Celery.
    configured.config_from_object({"lanes_normal_capacity": 13, "ezai_otpm": 5}, namespace="NONE")
    again = settings_of(configured)
    assert (again.lanes[1].capacity, again.limits.otpm) == (13, 5)


def test_a_dict_that_is_changed_in_place_is_seen():
    """The dict of lanes may be the same object as before, and say something else."""
    app = application({"lanes": (lanes := {"batch": {"capacity": 5}})})
    assert settings_of(app).lanes[2].capacity == 5

    lanes["batch"]["capacity"] = 6

    assert settings_of(app).lanes[2].capacity == 6


@pytest.mark.parametrize("what", ["module", "instance", "class", "base", "slots", "getattr"])
def test_an_object_that_is_changed_is_seen(what, module):
    """monkeypatch.setattr(settings_module, …) is the same as a change of the configuration, whatever the object."""
    base = type("Base", (), {})
    kinds = {
        "module": lambda: module({}),
        "instance": type("C", (), {}),
        "class": lambda: type("C", (), {}),
        "base": type("C", (base,), {}),
        "slots": type("C", (), {"__slots__": ("lanes_batch_capacity", "lanes_normal_capacity")}),
        "getattr": type("C", (), {"__getattr__": missing}),
    }
    source: Any = kinds[what]()
    changed = base if what == "base" else source
    changed.lanes_batch_capacity = 5
    app = application(source)
    assert settings_of(app).lanes[2].capacity == 5

    changed.lanes_batch_capacity = 6
    assert settings_of(app).lanes[2].capacity == 6
    changed.lanes_normal_capacity = 7
    assert settings_of(app).lanes[1].capacity == 7


def test_a_value_that_is_computed_is_asked_for_each_time():
    """A property has no value until it is read."""
    number = [5]
    config = type("C", (), {"lanes_batch_capacity": property(lambda _: number[0])})()
    app = application(config)
    assert settings_of(app).lanes[2].capacity == 5

    number[0] = 6

    assert settings_of(app).lanes[2].capacity == 6


def test_what_djangos_tests_override_is_seen(monkeypatch):
    """`override_settings` lays an object over the settings, and takes it away again."""
    lazy = django({"CELERY_LANES_BATCH_CAPACITY": 5}, monkeypatch)
    app = application(lazy, "CELERY")
    assert settings_of(app).lanes[2].capacity == 5

    below, override = lazy._wrapped, UserSettingsHolder(lazy._wrapped)
    override.CELERY_LANES_BATCH_CAPACITY = 6
    lazy._wrapped = override
    assert settings_of(app).lanes[2].capacity == 6
    lazy._wrapped = below
    assert settings_of(app).lanes[2].capacity == 5
    lazy.CELERY_LANES_BATCH_CAPACITY = 7
    assert settings_of(app).lanes[2].capacity == 7


def test_nothing_is_derived_anew_while_nothing_changes(monkeypatch):
    """It is asked several times a job; somebody else's variable changes no setting."""
    app = application(django(UPPER, monkeypatch), "CELERY")
    before = settings_of(app)

    monkeypatch.setenv("SOMEBODY_ELSES", "1")

    assert settings_of(app) is before


def test_settings_that_were_given_stay(monkeypatch):
    """Who passes settings to `install` decides."""
    app, given = Celery("proj", set_as_current=False, fixups=[]), Settings(broker_url="redis://given")
    install(app, given)
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://environment")

    assert settings_of(app) is given


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (
            {"CELERY_LANES_BATCH_CAPASITY": 1},
            "the setting CELERY_LANES_BATCH_CAPASITY is unknown, did you mean LANES_BA",
        ),
        ({"CELERY_EZAI_APIKEY": "the-key"}, "the setting CELERY_EZAI_APIKEY is unknown, did you mean EZAI_API_KEY?"),
        ({"CELERY_EZAI_RPM": "the-key"}, "the setting CELERY_EZAI_RPM: "),
        ({"EZAI_RPM": "the-key"}, "the setting EZAI_RPM: "),
        ({"CELERY_LANES_BATCH_FLOOR": 1.5}, "the setting CELERY_LANES_BATCH_FLOOR: "),
        ({"CELERY_LANES": {"bach": {}}}, "the setting CELERY_LANES: 'bach' is no lane, did you mean 'batch'?"),
        (
            {"CELERY_LANES": {"batch": {"capasity": 1}}},
            "CELERY_LANES at batch: 'capasity' is unknown, did you mean 'cap",
        ),
        ({"CELERY_LANES": {"batch": {"capacity": "the-key"}}}, "the setting CELERY_LANES at batch.capacity: "),
        ({"CELERY_LANES": {"batch": "the-key"}}, "the setting CELERY_LANES at batch: must be a dict"),
        ({"CELERY_LANES": "the-key"}, "the setting CELERY_LANES: must be a dict"),
        ({"CELERY_EZAI_LIMITS": {"*": {"rpm": "the-key"}}}, "the setting CELERY_EZAI_LIMITS at *.rpm: "),
        ({"CELERY_EZAI_LIMITS": {"*": {"rpn": "the-key"}}}, "the setting CELERY_EZAI_LIMITS at *.rpn: "),
        ({"CELERY_EZAI_API_KEY": "the-key is two"}, "the setting CELERY_EZAI_API_KEY: "),
        ({"CELERY_EZAI_BASE_URL": "the-key"}, "the setting CELERY_EZAI_BASE_URL: "),
        ({"CELERY_BROKER_URL": "amqp://u:the-key@mq"}, "the setting CELERY_BROKER_URL: the lanes need Redis or Valkey"),
    ],
)
def test_a_mistake_is_named_by_where_it_was_made(values, names, monkeypatch):
    """The operator reads which setting is wrong and what was meant, and nobody reads its value."""
    app = application(django(values, monkeypatch), "CELERY")

    with pytest.raises(InvalidSettings) as caught:
        settings_of(app)

    assert names in str(caught.value)
    assert "the-key" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_of_both_places_are_told_at_once(monkeypatch):
    """Three mistakes are one restart, not three."""
    monkeypatch.setenv("EZAI_RPM", "many")
    app = application({"lanes_batch_floor": 2, "ezai_apikey": "the-key", "lanes": {"bach": {}}})

    with pytest.raises(InvalidSettings, match=r"EZAI_RPM:") as caught:
        settings_of(app)

    told = str(caught.value)
    assert [name for name in ("lanes_batch_floor:", "ezai_apikey is", "'bach' is") if f"{name}" not in told] == []


@pytest.mark.parametrize(
    "values",
    [
        {"LANES": ["left", "right"]},
        {"LANES": {"left": 1}},
        {"LANES_OF_TRAFFIC": 3},
        {"EZAI_TEAM_DASHBOARD_URL": "https://dashboard"},
        {"CELERY_LANES": None},
        {"CELERY_EZAI_API_KEY": None},
        {"CELERY_EZAI_API_KEY": ""},
        {"LANES_PORT": "tcp://10.0.0.1:80"},
        {"LANES_BATCH_CAPACITIES": len},
    ],
)
def test_what_is_somebody_elses_or_not_set_is_passed_over(values, monkeypatch):
    """A project's settings hold much that only looks like ours."""
    app = application(django(values, monkeypatch), "CELERY")

    assert settings_of(app) == Settings.from_environment()


def test_an_import_in_a_settings_module_is_no_setting(module):
    """`from celery_app.lanes import LANES`, a module named lanes: neither is a dict of lanes."""
    from celery_app import lanes

    app = application(module({"lanes": lanes, "LANES": lanes.LANES}))

    assert settings_of(app) == Settings.from_environment()


@pytest.mark.parametrize("url", ["redis://a/1;redis://b/1", ["redis://a/1", "redis://b/1"]])
def test_several_brokers_are_one_url(url):
    """Celery takes a list, too."""
    assert settings_of(application({"broker_url": url})).broker_url == "redis://a/1;redis://b/1"


@pytest.mark.parametrize("backend", [None, "", "disabled"])
def test_a_project_without_a_result_backend_is_known(backend):
    """Results of lane jobs go to the broker then, and the project's own stay unstored."""
    settings = settings_of(application({"broker_url": "redis://b/1", "result_backend": backend}))

    assert (settings.result_backend, settings.has_own_backend) == ("redis://b/1", False)


def test_a_result_backend_is_not_looked_for():
    """Deriving settings imports no backend, of whatever kind."""
    from celery_app.configuration.given import Given, Value

    for backend in ("django-db", "db+postgresql://h/d", "no.such.module:Backend", object):
        settings = Settings.from_given(Given({("celery", "result_backend"): Value(backend, "it")}, []))
        assert (settings.result_backend, settings.has_own_backend) == (backend, True)

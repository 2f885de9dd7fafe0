"""Who may see Flower where nobody, or somebody, has said so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from celery_app.flower.protection import LOOPBACK, USER, protect

if TYPE_CHECKING:
    from pathlib import Path

LOGIN = ["ada:s3cret"]
OPEN = "FLOWER_UNAUTHENTICATED_API"


def protected(tmp_path: Path, *, ours: bool = True, config: bool = False, **said: Any) -> Any:
    """Return Flower's options after the start; `config` is whether there is a flowerconfig.py."""
    conf = tmp_path / "flowerconfig.py"
    if config:
        conf.touch()
    options = SimpleNamespace(
        **{"conf": str(conf), "address": "", "unix_socket": "", "auth": "", "basic_auth": None} | said
    )
    protect(options, has_only_lanes=ours)
    return options


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("said", [{}, {"basic_auth": []}, {"basic_auth": [""]}])
def test_without_a_login_a_password_is_made_up_and_printed(
    said: dict[str, Any], ours: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is another one each time, and only this machine can reach Flower."""
    made = [protected(tmp_path, ours=ours, **said) for _ in range(2)]
    (first,), (second,) = (each.basic_auth for each in made)
    name, _, password = first.partition(":")
    assert (name, first != second, len(password) > 20) == (USER, True, True)
    assert password in capsys.readouterr().err
    assert {each.address for each in made} == {LOOPBACK}


@pytest.mark.parametrize("said", [{"address": "0.0.0.0"}, {"unix_socket": "/run/flower"}])  # noqa: S104 - as a user may
def test_an_address_that_was_chosen_stays_and_gets_a_password(said: dict[str, str], tmp_path: Path) -> None:
    """Whoever opens Flower to other machines and names no login has one all the same."""
    options = protected(tmp_path, **said)
    assert options.basic_auth
    assert {name: getattr(options, name) for name in said} == said
    assert "address" in said or not options.address


@pytest.mark.parametrize("said", [{"basic_auth": LOGIN}, {"auth": ".*@example.com"}])
@pytest.mark.parametrize(("ours", "address"), [(True, LOOPBACK), (False, "")])
def test_a_login_that_was_given_is_the_only_one(
    said: dict[str, Any], ours: bool, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A project's Flower stays at its address: it had a login before there were lanes."""
    options = protected(tmp_path, ours=ours, **said)
    assert (options.basic_auth, options.auth) == (said.get("basic_auth"), said.get("auth", ""))
    assert options.address == address
    assert "password" not in capsys.readouterr().err


@pytest.mark.parametrize("said", [{}, {"basic_auth": LOGIN}])
def test_a_configuration_file_is_its_owners_word(
    said: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing changes for who has a flowerconfig.py; one without a login is told what that means."""
    options = protected(tmp_path, config=True, **said)
    assert (options.basic_auth, options.address) == (said.get("basic_auth"), "")
    assert ("whoever reaches it" in caplog.text) == (not said)


def test_flowers_own_word_for_open_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its variable opens it on this machine, with a warning; a login that was given counts more."""
    monkeypatch.setenv(OPEN, "true")
    options = protected(tmp_path)
    assert (options.basic_auth, options.address) == (None, LOOPBACK)
    assert "whoever reaches it" in caplog.text
    monkeypatch.setenv(OPEN, "no")
    assert protected(tmp_path).basic_auth

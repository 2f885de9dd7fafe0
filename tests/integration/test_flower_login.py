"""Who gets to Flower's pages, and who may change something there, as it is started without a word about that."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any

from flower_rig import flower

if TYPE_CHECKING:
    from pathlib import Path

WISH = {"action": "pause", "lane": "batch"}


def env(dead_port: int, **more: str) -> dict[str, Any]:
    """Return the environment of a Flower whose broker is away: it starts all the same."""
    return {"CELERY_BROKER_URL": f"redis://127.0.0.1:{dead_port}/0", **more}


def listens_elsewhere(port: int) -> bool:
    """Whether it can be reached by another address than 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.2", port), timeout=5).close()
    except OSError:
        return False
    return True


def test_flower_as_readme_starts_it_has_a_password_of_its_own(tmp_path: Path, dead_port: int) -> None:
    """It prints one; without it there is no page; other machines do not reach it; read-only, nobody pauses a lane."""
    with flower(tmp_path, "--read_only", login=None, **env(dead_port)) as page:
        found = re.search(r"user (\w+), password (\S+),", page.said())
        assert found, page.said()
        login = f"{found[1]}:{found[2]}"
        for path in ("/", "/tasks", "/broker", "/lanes", "/lanes/data", "/api/workers"):
            assert (page.ask(path, login=None).status, page.ask(path, login=login).status) == (401, 200)
        assert not listens_elsewhere(page.port)
        seen = page.ask("/lanes/data", login=login).json
        assert (seen["shown"], "No broker answers" in seen["problem"], seen["who"]) == (None, True, found[1])
        assert "read-only" in page.ask("/lanes", login=login).text
        assert page.ask("/lanes/change", login=login, data=WISH).status == 403


def test_where_flower_is_open_strangers_see_the_lanes_and_change_nothing(tmp_path: Path, dead_port: int) -> None:
    """Under a prefix the page is where Flower's own are; a configuration of one's own has not been touched."""
    (tmp_path / "flowerconfig.py").write_text('url_prefix = "flower"\ntasks_columns = "name,state"\n')
    with flower(tmp_path, login=None, **env(dead_port, FLOWER_UNAUTHENTICATED_API="true")) as page:
        text = page.ask("/flower/lanes", login=None).text
        assert "only who logs in" in text
        assert all(f'"/flower/{name}' in text for name in ("lanes", "lanes/static/lanes.js", "tasks"))
        assert page.ask("/flower/lanes/static/lanes.js", login=None).status == 200
        assert page.ask("/flower/lanes/change", login=None, data=WISH).status == 403
        assert 'data-column="lane"' not in page.ask("/flower/tasks", login=None).text
        assert listens_elsewhere(page.port)
        assert "Flower: user" not in page.said()

"""Flower's templates and ours in one place, so that ours have Flower's look and Flower's pages lead to ours."""

from __future__ import annotations

from pathlib import Path

from tornado.template import DictLoader

OURS = Path(__file__).parent / "templates"

#: The navigation in Flower's templates, and where its first list of pages ends.
NAVBAR, _END_OF_LIST = "navbar.html", "</ul>"

_LINK = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'lanes' %} active{% end %}" href="{{ reverse_url('lanes') }}"
            {% if active_tab == 'lanes' %}aria-current="page"{% end %}>Lanes</a>
        </li>
"""


def template_loader(flowers: Path) -> DictLoader:
    """Return what finds the templates of Flower's folder and ours; the navigation has one link more."""
    texts = {path.name: path.read_text() for folder in (flowers, OURS) for path in folder.glob("*.html")}
    pages, end, others = texts[NAVBAR].partition(_END_OF_LIST)
    texts[NAVBAR] = f"{pages}{_LINK if end else ''}{end}{others}"
    return DictLoader(texts)

"""What Celery shows of an application's configuration: ``celery report``, ``inspect conf``, Flower's pages."""

from __future__ import annotations

from typing import Any

from celery.app.utils import filter_hidden_settings

from celery_app.connections.urls import SENTINEL, SEPARATOR, shown, understood

_MASK = "*" * 8


def show_urls(app: Any) -> None:
    """Have an application's configuration show URLs that Celery itself cannot read; all else is as Celery shows it."""
    app.on_after_configure.connect(_on_configured, weak=False, dispatch_uid="celery_app.configuration.showing")


def _on_configured(source: Any, **_: Any) -> None:
    table = source.table

    def table_with_urls(with_defaults: bool = False, censored: bool = True) -> Any:
        rows = table(with_defaults, censored=False)
        if not censored:
            return rows
        ours = {key: shown(value, _MASK) for key, value in rows.items() if _is_ours(key, value)}
        return filter_hidden_settings({key: value for key, value in rows.items() if key not in ours}) | ours

    # Not by an assignment: that would be a setting.
    vars(source)["table"] = table_with_urls


def _is_ours(key: object, value: object) -> bool:
    """Whether a setting's value is a URL in our documentation's words, or several in one."""
    if not isinstance(key, str) or not isinstance(value, str) or "://" not in value:
        return False
    if not key.lower().endswith(("broker_url", "broker_read_url", "broker_write_url", "result_backend")):
        return False
    words = understood(value)
    several_sentinels = value.startswith(f"{SENTINEL}://") and SEPARATOR in value
    return several_sentinels or words.master is not None or words.url != value

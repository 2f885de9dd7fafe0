"""Whether the API takes the keys: one cheap call with each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anthropic import Anthropic, APIConnectionError, APIStatusError

from celery_app.checks import Finding
from celery_app.connections.urls import shown
from celery_app.settings import settings_of
from tasks.clients import unlogged

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that it may take.
_TIMEOUT = 20.0

#: Statuses that say that the key is wrong, that the address is, and that both are right but the call is not wanted now.
_KEY, _ADDRESS, _BUSY = {401, 403}, {404, 405}, {429, 529}


def check_api(app: Any, model: str) -> Iterator[Finding]:
    """Call the API once with each key; what it says is not shown, but for its status, as it may repeat the key."""
    settings = settings_of(app)
    lanes: dict[str, list[str]] = {}
    for lane in settings.lanes:
        if (key := settings.api_key(lane)) is not None:
            lanes.setdefault(key, []).append(lane.name)
    if without := [lane.name for lane in settings.lanes if settings.api_key(lane) is None]:
        yield Finding("API", "fail", f"no key to call with for {', '.join(without)}", "set EZAI_API_KEY")
    for key, names in lanes.items():
        yield _call(key, settings.base_url, model, f"the key of {', '.join(names)}")


def _call(key: str, base_url: str, model: str, whose: str) -> Finding:
    url = shown(base_url)
    try:
        with unlogged(), Anthropic(api_key=key, base_url=base_url, max_retries=0, timeout=_TIMEOUT) as client:
            answer = client.messages.create(model=model, max_tokens=1, messages=[{"role": "user", "content": "Hi"}])
            spent = f"{answer.usage.input_tokens} input and {answer.usage.output_tokens} output tokens of {model}"
    except APIConnectionError:
        return Finding("API", "fail", f"{url} does not answer", "mend EZAI_BASE_URL, or the way there")
    except APIStatusError as exc:
        return _refused(exc.status_code, url, whose, model)
    except Exception as exc:  # noqa: BLE001 - a gateway's nonsense ends a call in any of the SDK's errors
        return Finding("API", "fail", f"{url} answers with no message ({type(exc).__name__})", "mend EZAI_BASE_URL")
    return Finding("API", "ok", f"{url} takes {whose}; that cost {spent}")


def _refused(status: int, url: str, whose: str, model: str) -> Finding:
    words = f"{url} refuses {whose} with {status}"
    if status in _KEY:
        return Finding("API", "fail", words, "set another EZAI_API_KEY, or put the account in order")
    if status in _ADDRESS:
        return Finding("API", "fail", words, f"mend EZAI_BASE_URL, or name a model that the account has: not {model}")
    if status in _BUSY:
        return Finding("API", "warn", f"{words}: no room now, or a spend limit", "try again; look at the account")
    return Finding("API", "fail", words, "look at the account: credit, spend limit, models")

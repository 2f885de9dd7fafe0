"""A project with lanes and with tasks of its own in them; ``celery -A soaking.project`` runs its workers."""

from __future__ import annotations

import functools
from typing import Any

import anthropic
from celery import Celery

from celery_app import install
from celery_app.settings import settings_of
from tasks import LaneTask

MODEL = "claude-haiku-4-5"

#: Seconds that results are kept: they are looked at every second.
RESULTS_KEPT = 600

app = Celery("soak")
app.conf.update(result_expires=RESULTS_KEPT)
install(app)


@functools.cache
def sdk() -> anthropic.Anthropic:
    """Return the process' own client of the API."""
    return anthropic.Anthropic(api_key="soak", base_url=settings_of(app).base_url, max_retries=0)


@app.task(bind=True, base=LaneTask, name="soak.own")
def own(self: Any, job: str, text: str) -> int:
    """Make a call with an SDK of its own."""
    prompt: Any = [{"role": "user", "content": text}]
    asked: Any = {"model": MODEL, "max_tokens": 100, "messages": prompt, "metadata": {"user_id": job}}
    with self.admit(input_tokens=len(text) // 4, model=MODEL) as call:
        message = sdk().messages.create(**asked, timeout=self.seconds_left())
        call.answered(message)
    return len(message.content)


@app.task(base=LaneTask, name="soak.joined")
def joined(messages: list[Any]) -> int:
    """End a chord."""
    return len(messages)

"""A task of your own in a lane: its own SDK call on the shared budget, its own retries."""

import functools

import anthropic
from celery import shared_task

from tasks import LaneTask


@functools.cache
def sdk():
    return anthropic.Anthropic(max_retries=0)  # retries are the lane's


@shared_task(bind=True, base=LaneTask)
def summarise(self, text):
    prompt = [{"role": "user", "content": f"Summarise:\n{text}"}]
    try:
        with self.admit(input_tokens=len(text) // 4, model="claude-haiku-4-5") as call:
            message = sdk().messages.create(
                model="claude-haiku-4-5", max_tokens=300, messages=prompt, timeout=self.seconds_left()
            )
            call.answered(message)
    except (anthropic.RateLimitError, anthropic.APIConnectionError, anthropic.InternalServerError) as error:
        raise self.retry(exc=error, countdown=2) from error  # waits in the broker, then first of its lane again
    return message.content[0].text

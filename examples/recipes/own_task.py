"""A task of your own in a lane: its own SDK call on the shared budget, repeated as the lane says."""

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
    with self.admit(input_tokens=len(text) // 4, model="claude-haiku-4-5") as call:
        message = sdk().messages.create(
            model="claude-haiku-4-5", max_tokens=300, messages=prompt, timeout=self.seconds_left()
        )
        call.answered(message)  # a failure that passes sends the job back to its lane
    return message.content[0].text

"""The project's own task in a lane: it calls the API by itself, within the budget that all calls share."""

import os
from itertools import islice

from celery import shared_task

from celery_app import Batch
from tasks import LaneTask

MODEL = "claude-haiku-4-5"
URL = os.environ.get("EZAI_BASE_URL", "https://ezaiapi.com")


@shared_task(bind=True, base=LaneTask)
def summarise(self: LaneTask, batch_id: str) -> str:
    """Return a summary of a batch's answers."""
    from anthropic import Anthropic  # not in a web process

    text = "Sum these summaries up in two sentences:\n\n" + "\n".join(answers_of(batch_id).values())
    api = Anthropic(api_key=os.environ["EZAI_API_KEY"], base_url=URL, max_retries=0, timeout=self.seconds_left())
    with self.admit(input_tokens=len(text) // 4, model=MODEL) as call:
        message = api.messages.create(model=MODEL, max_tokens=300, messages=[{"role": "user", "content": text}])
        call.answered(message)  # a call that fails for now sends the job to the front of its lane
    return message.content[0].text


def answers_of(batch_id: str) -> dict[int, str]:
    """Return the answers that a batch has by now, by the number of their document, as they came."""
    batch = Batch.load(batch_id)
    ended = islice(batch.results(), batch.counts().ended)  # for more it would wait
    return {each.index + 1: each.message["content"][0]["text"] for each in ended if each.message}

"""The client in a few lines."""

from celery_app import ask, cancel, stream, submit_many


def at_a_glance(messages, requests):
    message = ask(model="claude-haiku-4-5", max_tokens=500, messages=messages)  # an anthropic.types.Message
    events = stream(model="claude-haiku-4-5", max_tokens=500, messages=messages)  # the Messages API's events as dicts
    kinds = [event["type"] for event in events]  # "restart": the stream broke and begins anew; forget what came before
    batch = submit_many(requests)  # into batch, tens of thousands a second; Batch.load(batch.id) finds it again
    cancel(events.task_id)  # queued, it never runs; running, its connection is closed
    return message, kinds, batch

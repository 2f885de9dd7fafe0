"""Ask what a batch will cost before it is queued."""

from celery_app import submit_many


def submit_for(documents, most_dollars):
    items = [
        {"model": "claude-haiku-4-5", "max_tokens": 300, "messages": [{"role": "user", "content": f"Sum up:\n{text}"}]}
        for text in documents
    ]
    cost = submit_many(items, dry_run=True).total  # nothing is queued
    print(f"{cost.jobs} documents: ${cost.live:.4f} now, ${cost.in_batches:.4f} in message batches")
    return submit_many(items) if cost.at_most <= most_dollars else None

"""A question and its answer."""

from celery_app import ask


def reply(question):
    messages = [{"role": "user", "content": question}]
    message = ask(model="claude-haiku-4-5", max_tokens=500, messages=messages)  # in critical; lane="normal" for another
    return message.content[0].text

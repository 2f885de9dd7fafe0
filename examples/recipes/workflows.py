"""Chains and chords over lanes and your own queues."""

from celery import chain, chord, shared_task

from tasks import LaneTask, create_message


def request(text):
    return {"model": "claude-haiku-4-5", "max_tokens": 300, "messages": [{"role": "user", "content": text}]}


@shared_task
def publish(message):  # an ordinary task takes the message, a dict
    return f"published: {message['content'][0]['text']}"


@shared_task(bind=True, base=LaneTask)
def digest(self, messages):  # takes all messages, and goes on as a call
    texts = "\n".join(message["content"][0]["text"] for message in messages)
    raise self.replace(create_message.si(**request(f"One summary of:\n{texts}")).set(queue="normal"))


def write_and_publish(text):
    return chain(create_message.si(**request(text)).set(queue="normal"), publish.s().set(queue="celery")).delay()


def summarise_all(texts):
    parts = [create_message.si(**request(f"Summarise:\n{text}")).set(queue="batch") for text in texts]
    return chord(parts, digest.s().set(queue="normal")).delay()

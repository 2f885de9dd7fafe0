"""Ten thousand documents into batch; a restart in between costs nothing."""

import json
import sys
from pathlib import Path

from celery_app import Batch, submit_many


def requests(path):
    with Path(path).open(encoding="utf-8") as lines:
        for line in lines:
            try:
                prompt = [{"role": "user", "content": f"Classify this document:\n{json.loads(line)['text']}"}]
            except (ValueError, KeyError, TypeError):
                yield None  # no request: submit_many names it by its number
            else:
                yield {"model": "claude-haiku-4-5", "max_tokens": 20, "messages": prompt}


def submit(path, on_invalid="skip"):  # "stop" raises InvalidItem at the first bad line, with nothing queued
    batch = submit_many(list(requests(path)), on_invalid=on_invalid, progress=lambda batch: print(batch.counts()))
    for error in batch.invalid:
        print(f"line {error.index + 1} was left out: {error.path}: {error.problem}")
    return batch.id  # keep it: it is all that another process needs


def collect(batch_id, path):
    with Path(path).open("a+", encoding="utf-8", buffering=1) as answers:
        answers.seek(0)
        had = {json.loads(line)["line"] for line in answers}  # by a run before that was interrupted
        for result in Batch.load(batch_id).results(patience=600):  # in the order in which they finish
            if result.index + 1 not in had:
                text = str(result.error) if result.error else result.message["content"][0]["text"]
                print(json.dumps({"line": result.index + 1, "ok": not result.error, "text": text}), file=answers)


if __name__ == "__main__":
    print({"submit": submit, "collect": collect}[sys.argv[1]](*sys.argv[2:]))

"""A system prompt and extended thinking, on two turns of a conversation."""

from celery_app import ask

CALL = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 6000,  # thinking included
    "system": [{"type": "text", "text": "You are a careful accountant.", "cache_control": {"type": "ephemeral"}}],
    "thinking": {"type": "enabled", "budget_tokens": 4000},
}


def two_turns(first, second):
    messages = [{"role": "user", "content": first}]
    thought = ask(lane="normal", **CALL, messages=messages)
    # The whole content goes back, signature and all; a dict is what a job can carry.
    messages += [
        {"role": "assistant", "content": thought.to_dict()["content"]},
        {"role": "user", "content": second},
    ]
    final = ask(lane="normal", **CALL, messages=messages)
    return next(block.text for block in final.content if block.type == "text")

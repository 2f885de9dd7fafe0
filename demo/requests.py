"""The demo's requests: a document to classify, one to summarize, a question to answer."""

from __future__ import annotations

from typing import Any

#: Output tokens at most: a class is a word, a summary a sentence or two, a chat answer a short paragraph.
CLASS_TOKENS, SUMMARY_TOKENS, ANSWER_TOKENS = 10, 100, 100

CLASSES = ("web", "data", "testing", "tooling", "security", "language", "other")
CLASSIFY = f"Classify the document. Answer with one word out of: {', '.join(CLASSES)}."
SUMMARIZE = "Summarize the document in one sentence."

QUESTIONS = (
    "What is a priority queue?",
    "Why is the sky blue?",
    "How do I undo the last git commit?",
    "What is the difference between a list and a tuple?",
    "How long does it take to boil an egg?",
    "What does HTTP status 429 mean?",
    "Who wrote Don Quixote?",
    "What is the capital of Australia?",
)


def classify(model: str, document: str, user_id: str) -> dict[str, Any]:
    """Return the request that classifies a document."""
    return _request(model, document, user_id, CLASS_TOKENS, CLASSIFY)


def summarize(model: str, document: str, user_id: str) -> dict[str, Any]:
    """Return the request that summarizes a document."""
    return _request(model, document, user_id, SUMMARY_TOKENS, SUMMARIZE)


def answer(model: str, number: int, user_id: str) -> dict[str, Any]:
    """Return the n-th chat question."""
    return _request(model, QUESTIONS[number % len(QUESTIONS)], user_id, ANSWER_TOKENS)


def _request(model: str, text: str, user_id: str, max_tokens: int, system: str | None = None) -> dict[str, Any]:
    instruction = {"system": system} if system else {}
    return {
        "model": model,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": text}],
        "metadata": {"user_id": user_id},
        **instruction,
    }

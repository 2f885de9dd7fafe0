"""The budget of an API key and a family of models, shared by every worker through Redis."""

from celery_app.budget.budget import Budget, budget_for
from celery_app.budget.call_end import CallEnd, CallOutcome
from celery_app.budget.cost import Cost, cost_of
from celery_app.budget.headers import RateLimit, RateLimits
from celery_app.budget.prefix import prefix_of
from celery_app.budget.reservation import Reservation, Settlement
from celery_app.budget.usage import Usage
from celery_app.budget.variant import metered_model

__all__ = [
    "Budget",
    "CallEnd",
    "CallOutcome",
    "Cost",
    "RateLimit",
    "RateLimits",
    "Reservation",
    "Settlement",
    "Usage",
    "budget_for",
    "cost_of",
    "metered_model",
    "prefix_of",
]

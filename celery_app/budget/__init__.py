"""The budget of an API key and a family of models, shared by every worker through Redis."""

from celery_app.budget.admission import Admission, Settlement
from celery_app.budget.budget import Budget, Outcome, budget_for
from celery_app.budget.cost import Cost, cost_of
from celery_app.budget.headers import RateLimit, RateLimits
from celery_app.budget.leases import CALL_LEASES
from celery_app.budget.usage import Usage
from celery_app.budget.variant import metered_model

__all__ = [
    "CALL_LEASES",
    "Admission",
    "Budget",
    "Cost",
    "Outcome",
    "RateLimit",
    "RateLimits",
    "Settlement",
    "Usage",
    "budget_for",
    "cost_of",
    "metered_model",
]

"""The site's views."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, JsonResponse

from orders.models import Order
from orders.tasks import mail_receipt


def order(request: HttpRequest) -> JsonResponse:
    """Take an order, and write the receipt once it is really there."""
    with transaction.atomic():
        made = Order.objects.create(item=request.POST["item"])
        mail_receipt.delay_on_commit(made.pk)
    return JsonResponse({"order": made.pk}, status=201)

"""The site's pages."""

from __future__ import annotations

from django.urls import path
from orders.views import order

urlpatterns = [path("order/", order)]

"""Pages, and the JSON and event streams behind them."""

from django.conf import settings
from django.urls import path
from django.views.decorators.http import require_POST
from django.views.generic import TemplateView
from django.views.static import serve

from proj import views

urlpatterns = [
    path("", TemplateView.as_view(template_name="chat.html")),
    path("chat", require_POST(views.start)),
    path("chat/<slug:task_id>", views.answer),
    path("ask", require_POST(views.ask)),
    path("batch", TemplateView.as_view(template_name="batch.html")),
    path("batches", require_POST(views.submit)),
    path("batches/<batch_id>", views.progress),
    path("batches/<batch_id>/summary", require_POST(views.summary)),
    path("status", TemplateView.as_view(template_name="status.html")),
    path("stats", views.stats),
    path("static/<path:path>", serve, {"document_root": settings.WEB / "static"}),
]

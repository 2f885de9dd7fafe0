"""The same statuses for all views of a Django project."""

# middleware.py; add "proj.middleware.LanesErrors" to MIDDLEWARE
from django.http import JsonResponse

from celery_app.errors import BrokerUnreachable, DeadlineExceeded, InvalidRequest, LaneFull, LanesError, UnknownLane

STATUSES = {InvalidRequest: 400, UnknownLane: 400, LaneFull: 503, BrokerUnreachable: 503, DeadlineExceeded: 504}


class LanesErrors:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_exception(self, request, error):
        if not isinstance(error, LanesError):
            return None
        status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 502)
        headers = {"Retry-After": "5"} if status == 503 else {}
        return JsonResponse({"error": type(error).__name__}, status=status, headers=headers)

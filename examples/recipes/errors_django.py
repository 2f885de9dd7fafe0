"""The same statuses for all views of a Django project."""

# middleware.py; add "proj.middleware.LanesErrors" to MIDDLEWARE
import logging

from django.http import JsonResponse

from celery_app import errors

logger = logging.getLogger(__name__)

STATUSES = {
    errors.InvalidRequest: 400,
    errors.UnknownLane: 400,
    errors.UnknownBatch: 404,
    errors.UnknownJob: 404,
    errors.StreamExpired: 404,
    errors.LaneFull: 503,
    errors.BrokerUnreachable: 503,
    errors.DeadlineExceeded: 504,
}


class LanesErrors:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_exception(self, request, error):
        if not isinstance(error, errors.LanesError):
            return None
        status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 502)
        logger.warning("%s: %s: %s", request.path, type(error).__name__, error)  # no prompt and no key is in it
        headers = {"Retry-After": "5"} if status == 503 else {}
        return JsonResponse({"error": type(error).__name__}, status=status, headers=headers)

"""Submit a call in one view, fetch its answer in another."""

# views.py
from celery.result import AsyncResult
from celery.states import READY_STATES, SUCCESS
from django.http import JsonResponse
from redis.exceptions import RedisError

from tasks import create_message


def submit(request):
    question = request.POST["question"]
    result = create_message.apply_async(
        kwargs={"model": "claude-haiku-4-5", "max_tokens": 500, "messages": [{"role": "user", "content": question}]},
        queue="normal",  # or "critical", or "batch"
    )
    return JsonResponse({"id": result.id}, status=202)


def fetch(request, task_id):
    result = AsyncResult(task_id)
    try:
        state = result.state
    except RedisError:  # of another result backend, its own error: it is not asked through the lanes
        return JsonResponse({"error": "BrokerUnreachable"}, status=503, headers={"Retry-After": "5"})
    if state not in READY_STATES:
        return JsonResponse({"state": state}, status=202)  # PENDING or RETRY
    if state != SUCCESS:
        return JsonResponse({"state": state, "error": str(result.result)}, status=502)
    return JsonResponse({"answer": result.result["content"][0]["text"]})

"""Submit a call in one view, fetch its answer in another."""

# views.py
from celery.result import AsyncResult
from django.http import JsonResponse

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
    if not result.ready():
        return JsonResponse({"state": result.state}, status=202)  # PENDING or RETRY
    if not result.successful():
        return JsonResponse({"state": result.state, "error": str(result.result)}, status=502)
    return JsonResponse({"answer": result.result["content"][0]["text"]})

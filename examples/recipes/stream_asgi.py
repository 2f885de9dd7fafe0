"""Stream an answer under ASGI; who closes the tab ends the call."""

from django.http import StreamingHttpResponse

from celery_app import astream


async def answer(request):
    messages = [{"role": "user", "content": request.POST["question"]}]
    job = astream(model="claude-haiku-4-5", max_tokens=1000, messages=messages, cancel_on_close=True)
    await job  # submits it: what is wrong is raised here, before the headers are out
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    # Left early, the job is cancelled; while it is silent, a comment every few seconds keeps proxies from hanging up.
    return StreamingHttpResponse(job.sse(), content_type="text/event-stream", headers=headers)

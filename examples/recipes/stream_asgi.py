"""Stream an answer under ASGI; who closes the tab ends the call."""

import json

from django.http import StreamingHttpResponse

from celery_app import astream
from celery_app.errors import LanesError, error_event


async def answer(request):
    messages = [{"role": "user", "content": request.POST["question"]}]
    job = astream(model="claude-haiku-4-5", max_tokens=1000, messages=messages, cancel_on_close=True)
    await job  # submits it: what is wrong is raised here, before the headers are out
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(as_sse(job), content_type="text/event-stream", headers=headers)


async def as_sse(job):
    async with job:  # left early, the job is cancelled
        try:
            async for event in job:
                yield f"id: {job.last_event_id}\ndata: {json.dumps(event)}\n\n"
        except LanesError as error:
            yield f"data: {json.dumps(error_event(error))}\n\n"

"""An uploaded image or PDF beside a question."""

import base64

from django.http import JsonResponse

from celery_app import ask

KINDS = {"application/pdf": "document", "image/png": "image", "image/jpeg": "image"}


def about_upload(request):
    upload = request.FILES["file"]
    data = base64.standard_b64encode(upload.read()).decode()  # JSON knows no bytes
    block = {
        "type": KINDS[upload.content_type],
        "source": {"type": "base64", "media_type": upload.content_type, "data": data},
    }
    question = {"type": "text", "text": request.POST["question"]}
    message = ask(model="claude-haiku-4-5", max_tokens=500, messages=[{"role": "user", "content": [block, question]}])
    return JsonResponse({"answer": message.content[0].text})

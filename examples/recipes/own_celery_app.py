"""A project's own Celery application, with the lanes beside its own queues."""

# proj/celery.py
from celery import Celery

from celery_app import install

app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")  # or your Flask config
install(app)  # the lanes, beside your own queues


@app.task
def send_mail(address, text):  # an ordinary task; it goes to an ordinary queue, as before
    return f"{address}: {text}"

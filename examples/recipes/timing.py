"""Later, and in which order within a lane."""

from datetime import datetime, time, timedelta

from tasks import create_message


def in_a_while(request, seconds):
    return create_message.apply_async(kwargs=request, queue="normal", countdown=seconds)


def tonight(request):
    midnight = datetime.combine(datetime.now().astimezone() + timedelta(days=1), time.min).astimezone()
    return create_message.apply_async(kwargs=request, queue="batch", eta=midnight)


def before_the_other_documents(request):  # first within batch, and still behind critical and normal
    return create_message.apply_async(kwargs=request, queue="batch", priority=0)


def after_the_other_documents(request):
    return create_message.apply_async(kwargs=request, queue="batch", priority=9)

"""What the lanes are measured against: one way to do the same work in each file, and the page that it follows."""

#: Short name -> the module here and its class. Imported in the process of one measurement, whose broker it uses.
CONTENDERS = {
    "lanes": ("lanes", "Lanes"),
    "celery": ("stock", "Stock"),
    "celery-rate": ("stock", "RateLimited"),
    "bucket": ("bucket", "Shared"),
    "bucket-split": ("bucket", "Split"),
    "dramatiq": ("dramatiq_window", "Dramatiq"),
    "taskiq": ("taskiq_list", "Taskiq"),
    "asyncio": ("asyncio_queue", "AsyncioQueue"),
}

"""``lanes up`` and ``lanes demo``, which `celery_lanes_plugin` looks for by name."""

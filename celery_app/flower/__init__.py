"""What a process of Flower has besides Flower: the lanes' page, true counts, a lane for each task, and a login.

`celery_lanes_plugin` imports it where ``celery … flower`` runs, and nowhere else is Flower imported. What is taken of
Flower beyond its pages' classes, options and templates is read in 2.2; tests/unit/test_flower_names.py says so of each.
"""

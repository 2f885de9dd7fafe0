"""All that a worker for lanes does when it is told to stop; what a signal is, and who hears it first, is Celery's.

| told by | what happens to jobs in lanes | where |
|---|---|---|
| SIGTERM, Ctrl-C, ``control.shutdown`` | no more are claimed, what runs is finished | Celery; `told`, for slots that wait |
| a second SIGTERM | calls are hung up on, their jobs are back at their places at once | `giving_back` |
| SIGQUIT, a second Ctrl-C, SIGTERM with ``REMAP_SIGTERM=SIGQUIT`` | the same, after Celery's soft shutdown | `giving_back` |
| SIGKILL | leases end after 15 s; one who was told to stop before died of no job | `stopper`; ``lib/leases.lua`` |
| SIGTERM to a process of a pool, too | it goes on while its worker finishes | `children` |
"""

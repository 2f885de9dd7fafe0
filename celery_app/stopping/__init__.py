"""All that a worker for lanes does when it is told to stop; what a signal is, and who hears it first, is Celery's.

| told by | jobs in lanes | where |
|---|---|---|
| SIGTERM, Ctrl-C, ``control.shutdown`` | no more are claimed, what runs is finished | Celery, `told` |
| a second SIGTERM | calls are hung up on, their jobs are back at once | `giving_back` |
| SIGQUIT, a second Ctrl-C, SIGTERM by ``REMAP_SIGTERM`` | the same after the soft shutdown | `giving_back` |
| SIGKILL | their leases end; after one of the others, nobody is blamed | `leaving`, ``lib/leases.lua`` |
| SIGTERM to a pool's process, too | it goes on while its worker finishes | `children` |

`stopper` hears all of it.
"""

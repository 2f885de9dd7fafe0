"""The simulated EzAI: a Messages API on 127.0.0.1, with rate limits and with every fault that real ones have.

In a test: `with running(Behaviour(latency=0.1), limits=Limits(rpm=60)) as server:`, then `server.url`.
On the command line: `python -m celery_app.demo.ezai --port 0 --rpm 60 --latency 0.1`.
"""

from celery_app.demo.ezai.behaviour import Behaviour
from celery_app.demo.ezai.faults import Fault
from celery_app.demo.ezai.fields import InvalidChange
from celery_app.demo.ezai.limits import Limits
from celery_app.demo.ezai.server import RunningServer, Server, running
from celery_app.demo.ezai.simulator import Simulator

__all__ = ["Behaviour", "Fault", "InvalidChange", "Limits", "RunningServer", "Server", "Simulator", "running"]

"""The simulated EzAI: a Messages API on 127.0.0.1, with rate limits and with every fault that real ones have.

In a test: `with running(Behaviour(latency=0.1), limits=Limits(rpm=60)) as server:`, then `server.url`.
On the command line: `python -m demo.simulator --port 0 --rpm 60 --latency 0.1`.
"""

from demo.simulator.behaviour import Behaviour, InvalidChange
from demo.simulator.bill import Price
from demo.simulator.limits import ApiLimits
from demo.simulator.server import RunningServer, running
from demo.simulator.simulator import Simulator

__all__ = ["ApiLimits", "Behaviour", "InvalidChange", "Price", "RunningServer", "Simulator", "running"]

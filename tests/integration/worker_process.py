"""Another name of the kit's worker, until the kit moves."""

from broker_kit.worker import TO_START as START_DEADLINE, WorkerProcess as Worker, worker

__all__ = ["START_DEADLINE", "Worker", "worker"]

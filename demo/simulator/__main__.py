"""python -m demo.simulator: run the simulated API until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import signal
import sys
from typing import Any

from demo.simulator.behaviour import Behaviour
from demo.simulator.fields import InvalidChange, kinds
from demo.simulator.limits import Limits
from demo.simulator.server import Server
from demo.simulator.simulator import Simulator

# How soon the server notices that its parent has died.
PARENT_CHECK_S = 0.25

OPTIONS = "Each attribute below is an option, too: --tokens-per-second 30, --no-headers, --outage."
_TYPES: dict[str, type] = {"int": int, "int | None": int, "float": float, "float | None": float}


def main(arguments: list[str] | None = None) -> int:
    """Run the server and return its exit status: 0 when stopped, 1 when the port is taken."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    simulator = Simulator(Behaviour(), Limits(), options.pop("key"))
    # Before anybody can know that the server is ready: a parent that dies right then must be missed, too.
    parent = os.getppid() if options.pop("exit_with_parent") else None
    port = options.pop("port")
    try:
        simulator.change({name: value for name, value in options.items() if value is not None})
    except InvalidChange as error:
        parser.error(str(error))
    return asyncio.run(_serve(simulator, port, parent))


async def _serve(simulator: Simulator, port: int, parent: int | None) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        server = Server(simulator, port)
    except OSError as error:
        sys.stderr.write(f"cannot listen on port {port}: {error.strerror}\n")
        return 1
    sys.stdout.write(json.dumps({"url": server.url, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    await _until(stopping, parent)
    await server.stop()
    return 0


async def _until(stopping: asyncio.Event, parent: int | None) -> None:
    """Wait for a signal, or for the parent's death: then another process becomes the parent."""
    while not stopping.is_set() and parent in {None, os.getppid()}:
        try:
            await asyncio.wait_for(stopping.wait(), None if parent is None else PARENT_CHECK_S)
        except TimeoutError:
            continue


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo.simulator",
        description="A simulated Messages API on 127.0.0.1. Prints its URL as one line of JSON when it is ready.",
        epilog=f"{OPTIONS}\n\n{inspect.getdoc(Behaviour)}\n\n{inspect.getdoc(Limits)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--key", action="append", default=[], help="an API key to accept; without, any key is good")
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when the parent process has died")
    parser.add_argument("--limits", type=json.loads, help='by model pattern: {"*haiku*": {"rpm": 60}}')
    for record in (Behaviour, Limits):
        _add_fields(parser, kinds(record))
    return parser


def _add_fields(parser: argparse.ArgumentParser, fields: dict[str, str]) -> None:
    for name, annotation in fields.items():
        switch = annotation == "bool"
        kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if switch else {"type": _TYPES[annotation]}
        parser.add_argument(f"--{name.replace('_', '-')}", default=None, help=argparse.SUPPRESS, **kind)


if __name__ == "__main__":
    sys.exit(main())

"""python -m demo.simulator: run the simulated API until it is told to stop."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import signal
import sys
import time
from dataclasses import fields
from typing import Any

from demo.simulator.behaviour import Behaviour, InvalidChange
from demo.simulator.bill import Price
from demo.simulator.limits import ApiLimits
from demo.simulator.server import running

PARENT_CHECK_S = 0.25  # how soon the server notices that its parent has died


def main(arguments: list[str] | None = None) -> None:
    """Run the server; exit with 0 when stopped, 1 when the port is taken, 2 when an option is wrong."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    port, keys = options.pop("port"), options.pop("key")
    # Before anybody can know that the server is ready: a parent that dies right then must be missed, too.
    parent = os.getppid() if options.pop("exit_with_parent") else None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        with running(port=port, keys=keys) as server:
            server.control(**{name: value for name, value in options.items() if value is not None})
            sys.stdout.write(json.dumps({"url": server.url, "pid": os.getpid()}) + "\n")
            sys.stdout.flush()
            while parent in {None, os.getppid()}:
                time.sleep(PARENT_CHECK_S)
    except InvalidChange as error:
        parser.error(str(error))
    except OSError as error:
        sys.exit(f"cannot listen on port {port}: {error.strerror}")


def _parser() -> argparse.ArgumentParser:
    text = "A simulated Messages API on 127.0.0.1. Prints its URL as one line of JSON when it is ready."
    options = "Each attribute below is an option, too: --tokens-per-second 30, --no-headers, --outage."
    epilog = (
        f"{options}\n\n{inspect.getdoc(Behaviour)}\n\n{inspect.getdoc(ApiLimits)}\n\n--prices: {inspect.getdoc(Price)}"
    )
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m demo.simulator", None, text, epilog, formatter_class=raw)
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--key", action="append", default=[], help="an API key to accept; without, any key is good")
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when the parent process has died")
    parser.add_argument("--limits", type=json.loads, help='by model pattern: {"*haiku*": {"rpm": 60}}')
    parser.add_argument("--prices", type=json.loads, help='by model pattern: {"*haiku*": {"input": 1.0}}')
    for field in (*fields(Behaviour), *fields(ApiLimits)):
        switch = isinstance(field.default, bool)
        kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if switch else {"type": json.loads}
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=None, help=argparse.SUPPRESS, **kind)
    return parser


if __name__ == "__main__":
    main()

"""Servers behind every form of a broker's URL that the documentation shows."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from demo.ports import LOCALHOST
from kit.server import Server

# Servers on this machine answer well within this.
DEADLINE_S = 20.0

#: Percent-encoded where a URL needs it: people's passwords have such letters.
PASSWORD = "s3cret/@:"  # noqa: S105 - opens nothing
SENTINEL_PASSWORD = "w4tcher"  # noqa: S105 - likewise

#: What must show nowhere: no part of a password, encoded or not.
SECRETS = ("s3cret", SENTINEL_PASSWORD)

MASTER = "lanes"


def data_server(folder: Path, *lines: str) -> Server:
    """Return a server that keeps nothing, and asks for the password."""
    return Server(folder, *lines, durable=False, password=PASSWORD)


@contextmanager
def sentinels(
    folder: Path,
    master: Server,
    count: int = 2,
    *,
    password: str | None = PASSWORD,
    own: str | None = None,
    down_after_ms: int = 500,
) -> Iterator[list[Server]]:
    """Run Sentinels that watch a master; `own` is the password that they themselves ask for."""
    lines = [f"sentinel monitor {MASTER} {LOCALHOST} {master.port} 1"]
    lines += [f"sentinel down-after-milliseconds {MASTER} {down_after_ms}"]
    lines += [f"sentinel failover-timeout {MASTER} 3000"]
    lines += [f'sentinel auth-pass {MASTER} "{password}"'] if password else []
    lines += [f'sentinel sentinel-pass "{own}"'] if own else []
    with ExitStack() as stack:
        yield [stack.enter_context(Server(folder, *lines, sentinel=True, password=own)) for _ in range(count)]


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for 127.0.0.1, and return it and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True, timeout=DEADLINE_S
    )
    return certificate, key


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on all that comes, until one side ends."""
    with suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    with suppress(OSError):
        writer.close()
        await writer.wait_closed()


@contextmanager
def tls_front(port: int, cert: Path, key: Path) -> Iterator[int]:
    """Give the port of a TLS front for a server on `port`: the embedded server was built without TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    loop = asyncio.new_event_loop()

    relays: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        relays[task] = writer
        with suppress(OSError):
            upstream_reader, upstream_writer = await asyncio.open_connection(LOCALHOST, port)
            await asyncio.gather(copy(reader, upstream_writer), copy(upstream_reader, writer))
        del relays[task]

    async def end() -> None:
        front.close()
        # A relay closes both its sides when one has ended; a cancelled one would leave them to the collector.
        for writer in relays.values():
            writer.transport.abort()
        await asyncio.gather(*relays)

    front = loop.run_until_complete(asyncio.start_server(relay, LOCALHOST, 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, name="tls-front")
    thread.start()
    try:
        yield front.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(DEADLINE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE_S)
        loop.close()

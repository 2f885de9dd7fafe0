"""A Messages API whose every token is the time at which it was sent; a process of its own, so that it is on time."""

from __future__ import annotations

import argparse
import asyncio
import json
import time

#: Length of a request's head in bytes at most.
LIMIT = 1 << 20


def event(kind: str, **fields: object) -> bytes:
    """Return one chunk with one event."""
    data = f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def message(text: str) -> dict[str, object]:
    """Return a message."""
    content = [{"type": "text", "text": text}] if text else []
    usage = {"input_tokens": 1, "output_tokens": 1}
    kind = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
    return {**kind, "content": content, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}


class ClockApi:
    """Answers every POST with a message, every GET with nothing in particular."""

    def __init__(self, tokens: int, pace: float, latency: float) -> None:
        """Send so many tokens in each stream, so many a second; a whole message after `latency` seconds."""
        self._tokens, self._pace, self._latency = tokens, pace, latency

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a connection's requests."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = head.partition("content-length:")[2].partition("\r\n")[0]
                body = await reader.readexactly(int(length or 0))
                if b'"stream":true' in body.replace(b" ", b""):
                    await self._stream(writer)
                else:
                    await self._whole(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _whole(self, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._latency)
        body = json.dumps(message("hello")).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
        writer.write(body)

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(event("message_start", message=message("")))
        writer.write(event("content_block_start", index=0, content_block={"type": "text", "text": ""}))
        begun = time.monotonic()
        for number in range(1, self._tokens + 1):
            await asyncio.sleep(max(0.0, begun + number / self._pace - time.monotonic()))
            delta = {"type": "text_delta", "text": f"{time.time():.6f} "}
            writer.write(event("content_block_delta", index=0, delta=delta))
        writer.write(event("content_block_stop", index=0))
        usage = {"output_tokens": self._tokens}
        writer.write(event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage))
        writer.write(event("message_stop") + b"0\r\n\r\n")


async def main() -> None:
    """Serve until killed; the port is the first line of the output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--pace", type=float, default=30.0)
    parser.add_argument("--latency", type=float, default=0.1)
    options = parser.parse_args()
    api = ClockApi(options.tokens, options.pace, options.latency)
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0, limit=LIMIT, backlog=1_024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

"""A model that takes its time, over the chat completions protocol: in a process of its own, for benchmarks.

    python -m benchmarks.model_server --seconds 2

Prints its port. A request with ``"stream": true`` gets its answer in pieces over the same time. ``GET /stats`` tells
how many requests are, and at most were, in flight at once, and over how many connections; ``GET /reset`` begins anew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Final, cast

import uvloop

WORDS: Final = "This is what a language model would have said if there had been one here".split()  # noqa: SIM905
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n"
_USAGE: Final = {"prompt_tokens": 40, "completion_tokens": len(WORDS), "total_tokens": 40 + len(WORDS)}


def _whole() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": " ".join(WORDS)}, "finish_reason": "stop"}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": _USAGE}).encode()


def _pieces() -> list[bytes]:
    events = [{"choices": [{"index": 0, "delta": {"content": f"{word} "}}]} for word in WORDS]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": _USAGE}
    lines = [f"data: {json.dumps(event)}\n\n".encode() for event in [*events, last]] + [b"data: [DONE]\n\n"]
    return [b"%x\r\n%s\r\n" % (len(line), line) for line in lines] + [b"0\r\n\r\n"]


class Server:
    """Counts, and answers after ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.whole = _HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n" % len(_whole()) + _whole()
        self.head = _HEAD % b"text/event-stream" + b"Transfer-Encoding: chunked\r\n\r\n"
        self.pieces = _pieces()
        self.reset()

    def reset(self) -> None:
        self.now = self.peak = self.asked = self.connections = 0

    def stats(self) -> bytes:
        names = ("now", "peak", "asked", "connections")
        body = json.dumps({name: getattr(self, name) for name in names}).encode()
        return _HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Connection(asyncio.Protocol):
    """One connection: requests one after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._fresh = True
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by birth

    def connection_lost(self, _error: Exception | None) -> None:
        if self._waiting:
            self._waiting.cancel()
            self._server.now -= 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if len(rest) < length:
            return
        del self._buffer[: len(head) + len(separator) + length]
        self._asked(bytes(head), bytes(rest[:length]))

    def _asked(self, head: bytes, body: bytes) -> None:
        server = self._server
        if head.startswith(b"GET"):
            if b"/reset" in head:
                server.reset()
            self._transport.write(server.stats())
            return
        server.connections += self._fresh
        self._fresh = False
        server.asked += 1
        server.now += 1
        server.peak = max(server.peak, server.now)
        loop = asyncio.get_running_loop()
        if b'"stream":true' in body.replace(b" ", b""):
            self._transport.write(server.head)
            self._waiting = loop.call_later(server.seconds / len(server.pieces), self._say, 0)
        else:
            self._waiting = loop.call_later(server.seconds, self._answer)

    def _answer(self) -> None:
        self._done()
        self._transport.write(self._server.whole)

    def _say(self, number: int) -> None:
        pieces = self._server.pieces
        if number < len(pieces) - 2:
            self._transport.write(pieces[number])
            delay = self._server.seconds / (len(pieces) - 1)
            self._waiting = asyncio.get_running_loop().call_later(delay, self._say, number + 1)
            return
        self._done()
        self._transport.write(b"".join(pieces[number:]))

    def _done(self) -> None:
        self._waiting = None
        self._server.now -= 1


async def serve(seconds: float) -> None:
    server = Server(seconds)
    listening = await asyncio.get_running_loop().create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=4096)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    uvloop.run(serve(parser.parse_args().seconds))


if __name__ == "__main__":
    main()

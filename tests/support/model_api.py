"""A model's API in a thread: answers what a test tells it to, and keeps what it was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any


@dataclass
class Sent:
    """One request: its path with the query, its headers in lower case, its body."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class ModelApi:
    """``replies`` are (status, body, headers), given in turn; the last one again and again.

    Each takes ``seconds``, in which whoever asked may have left.
    """

    url: str = ""
    replies: list[tuple[int, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    seconds: float = 0.0
    closing: Event = field(default_factory=Event)

    def reply(self, body: dict[str, Any], status: int = 200, **headers: str) -> None:
        """Add a reply."""
        self.replies.append((status, body, headers))


@contextmanager
def model_api() -> Iterator[ModelApi]:
    """Serve on a free port of this machine."""
    api = ModelApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # one packet for an answer, as servers do

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            api.sent.append(Sent(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            api.connections.add(self.client_address)
            if api.seconds:
                api.closing.wait(api.seconds)
            status, answer, headers = api.replies.pop(0) if len(api.replies) > 1 else api.replies[0]
            data = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            with suppress(ConnectionError):
                self.end_headers()
                self.wfile.write(data)
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        api.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()

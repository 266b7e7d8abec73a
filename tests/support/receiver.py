"""An HTTP service that honours ``Idempotency-Key``: each key is carried out once, and answered alike afterwards."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """``seen`` counts requests by key, ``done`` has the bodies that were carried out, in order.

    The path says how it behaves: ``/pay`` answers; ``/slow`` answers after ``pause`` is set; ``/drop`` carries the
    request out and hangs up without an answer; ``/hook`` refuses each ``webhook-id`` ``refusals`` times, then takes it.
    ``hooks`` has the headers and bytes that came there.
    """

    def __init__(self) -> None:
        self.port = 0
        self.seen: Counter[str] = Counter()
        self.done: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.pause = threading.Event()
        self.refusals = 0
        self.hooks: list[tuple[dict[str, str], bytes]] = []
        self._answers: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """Return the status that a webhook is answered with."""
        with self._lock:
            self.hooks.append((headers, body))
            self.seen[headers["webhook-id"]] += 1
            return 503 if self.seen[headers["webhook-id"]] <= self.refusals else 204

    def carry_out(self, key: str, body: Any, headers: dict[str, str]) -> int:
        """Return the number of the deed: the same for the same key."""
        with self._lock:
            self.seen[key] += 1
            self.headers.append(headers)
            if not key or key not in self._answers:
                self.done.append(body)
                self._answers[key] = len(self.done)
            return self._answers[key]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Yield a receiver that listens on loopback."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/hook":
                self.send_response(receiver.take({name.lower(): text for name, text in self.headers.items()}, body))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            number = receiver.carry_out(
                self.headers.get("Idempotency-Key", ""), json.loads(body or b"null"), dict(self.headers)
            )
            if self.path == "/drop":
                self.close_connection = True
                return
            if self.path == "/slow":
                receiver.pause.wait(30)
            answer = json.dumps({"number": number}).encode()
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.pause.set()
        server.shutdown()
        server.server_close()
        thread.join()

"""SQS that counts its calls: moto in server mode, in a process of its own, for benchmarks.

    python -m benchmarks.sqs_server

Prints its port. ``GET /-/calls`` tells, for each action, how many calls there were and how many SQS would bill: each
64 KiB of what is sent or received is one.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from math import ceil
from typing import Any, Final

from moto.server import DomainDispatcherApplication, create_backend_app
from moto.sqs import models
from werkzeug.serving import make_server

CHUNK_BYTES: Final = 64 * 1024

Start = Callable[..., Any]


class Counted:
    """A WSGI application in front of moto's."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._billed: Counter[str] = Counter()

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/-/calls":
            with self._lock:
                body = json.dumps({"calls": self._calls, "billed": self._billed}).encode()
            start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
            return [body]
        action = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        sent = int(environ.get("CONTENT_LENGTH") or 0)
        answer = [bytes(part) for part in self._app(environ, start)]
        if action:
            size = max(sent, sum(map(len, answer)))
            with self._lock:
                self._calls[action] += 1
                self._billed[action] += max(ceil(size / CHUNK_BYTES), 1)
        return answer


def hurry() -> None:
    """Give moto a plain clock: it makes four dates of each message of a queue for every call, seconds at depth."""
    models.unix_time = lambda _at=None: time.time()  # type: ignore[assignment]
    models.unix_time_millis = lambda _at=None: time.time() * 1000  # type: ignore[assignment]


def main() -> None:
    hurry()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, Counted(), threaded=True)
    print(server.port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

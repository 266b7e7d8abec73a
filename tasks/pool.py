"""A Celery worker pool that runs coroutines: one event loop in one thread, many requests at a time.

Three threads of concern meet here, and each method says where it runs. Celery's main thread owns the broker
connection: it receives, acknowledges and stops. The loop's thread runs the hops. What the loop has finished goes back
to the main thread through the hub, which it wakes. Unlike the pools that Celery ships, this one keeps acknowledging
while it drains.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, Protocol

import orjson
import structlog
from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool
from celery.exceptions import Reject

from tasks.attempt import Disposition

log = structlog.get_logger()

_CANCEL_MARGIN_SECONDS: Final = 3.0
"""Seconds at the end of the grace period in which running attempts are cancelled and handed back."""
_FAULT_PAUSE_SECONDS: Final = 1.0

Callback = Callable[[tuple[int, Any, float]], None]


class Handler(Protocol):
    """What a worker process serves: opened on the loop before the first message, closed after the last."""

    async def open(self) -> None:
        """Connect and warm up."""

    async def handle(self, task: str, raw: dict[str, Any], tag: str) -> Disposition:
        """Do what a message asks."""

    async def close(self) -> None:
        """Write what is pending and disconnect."""


class LoopPool(BasePool):
    """See the module. The app's configuration holds the :class:`Handler` and ``sluice_grace_seconds``."""

    signal_safe = False
    body_can_be_buffer = True

    def on_start(self) -> None:
        """Start the loop and open the handler; main thread. What fails here keeps the worker from starting."""
        self._handler: Handler = self.app.conf.sluice_handler
        self._running: set[Future[Disposition]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._finished: deque[tuple[Callback, Any, float]] = deque()
        self._progress = threading.Event()
        self._hub: Any = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._handler.open(), self._loop).result()

    def register_with_event_loop(self, loop: Any) -> None:
        """Remember Celery's hub; main thread, again after each reconnection."""
        self._hub = loop

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callback | None = None,
        accept_callback: Callable[[int, float], None] | None = None,
        **_: Any,
    ) -> None:
        """Hand a message to the loop; main thread. ``args`` are those of Celery's tracer, which is not used."""
        task, _task_id, request, body, *_rest = args
        if accept_callback:
            accept_callback(os.getpid(), time.monotonic())
        tag = request.get("properties", {}).get("delivery_tag", "")
        begun = time.monotonic()
        future = asyncio.run_coroutine_threadsafe(self._run(task, body, tag), self._loop)
        self._running.add(future)
        future.add_done_callback(lambda done: self._on_done(done, callback, begun))

    async def _run(self, task: str, body: Any, tag: str) -> Disposition:
        """Run a hop; loop thread."""
        current = asyncio.current_task()
        if current is not None:
            self._tasks.add(current)
            current.add_done_callback(self._tasks.discard)
        try:
            return await self._handler.handle(task, _payload(body), tag)
        except asyncio.CancelledError:
            # Told to stop before it had begun anything: the message is as good as new.
            return Disposition.REQUEUE
        except Exception:
            # The stores themselves fail: nothing could be written, so nothing may be acknowledged.
            log.exception("message given back to the broker")
            await asyncio.sleep(_FAULT_PAUSE_SECONDS)
            return Disposition.REQUEUE

    def _on_done(self, future: Future[Disposition], callback: Callback | None, begun: float) -> None:
        """Pass an outcome to the main thread; loop thread."""
        if callback:
            disposition = Disposition.REQUEUE if future.cancelled() else future.result()
            self._finished.append((callback, disposition, time.monotonic() - begun))
        self._running.discard(future)
        self._progress.set()
        if self._hub is not None:
            self._hub.call_soon(self._reap)

    def _reap(self) -> None:
        """Acknowledge what is finished; main thread."""
        while self._finished:
            callback, disposition, seconds = self._finished.popleft()
            if disposition is Disposition.ACK:
                callback((0, None, seconds))
            else:
                callback((1, _reject(), seconds))

    def on_stop(self) -> None:
        """Drain; main thread, which Celery blocks here while the hub stands still.

        Running work gets the grace period less a margin, then it is cancelled and hands its requests back.
        """
        grace = float(self.app.conf.sluice_grace_seconds)
        self._drain(max(grace - _CANCEL_MARGIN_SECONDS, 0.0))
        self._loop.call_soon_threadsafe(self._cancel)
        self._drain(_CANCEL_MARGIN_SECONDS)
        try:
            asyncio.run_coroutine_threadsafe(self._handler.close(), self._loop).result(_CANCEL_MARGIN_SECONDS)
        except Exception as error:  # noqa: BLE001  the process ends all the same, and has to end in order
            log.warning("stores did not close", error=repr(error))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CANCEL_MARGIN_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    on_terminate = on_stop

    def _cancel(self) -> None:
        """Cancel what still runs; loop thread. Each attempt hands its request back before it ends."""
        for task in list(self._tasks):
            task.cancel()

    def _drain(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            self._progress.clear()
            self._flush()
            left = end - time.monotonic()
            if left <= 0 or not (self._running or self._finished):
                break
            self._progress.wait(min(left, 0.5))
        self._flush()

    def _flush(self) -> None:
        self._reap()
        # Acknowledgements are promises that wait for the hub's next turn, and there is none any more.
        if self._hub is not None:
            for promise in self._hub._pop_ready():  # noqa: SLF001  the hub offers no public way
                promise()


def _payload(body: Any) -> dict[str, Any]:
    """Return the one argument of the task message, or what stands for a message that has none."""
    try:
        raw = orjson.loads(bytes(body) if isinstance(body, memoryview) else body)[0][0]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raw = None
    return raw if isinstance(raw, dict) else {"unreadable": True}


def _reject() -> ExceptionInfo:
    """Return how Celery's tracer reports that a message goes back to its queue."""
    try:
        raise Reject("handed back", requeue=True)  # noqa: TRY301  Celery reads the traceback of a raised one
    except Reject:
        return ExceptionInfo()

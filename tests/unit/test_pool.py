"""The Celery pool, driven as Celery drives it: a hub that turns, or stands still while the pool drains."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import Reject

from tasks import pool as module
from tasks.attempt import Disposition
from tasks.pool import LoopPool


class Hub:
    """Kombu's hub as far as the pool uses it; ``turn`` plays its main loop."""

    def __init__(self) -> None:
        self._ready: list[Callable[[], None]] = []
        self.called = threading.Event()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._ready.append(callback)
        self.called.set()

    def _pop_ready(self) -> list[Callable[[], None]]:
        ready, self._ready = self._ready, []
        return ready

    def turn(self) -> None:
        assert self.called.wait(5)
        self.called.clear()
        for callback in self._pop_ready():
            callback()


class Scripted:
    """A handler that does what the message says."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.seen: list[tuple[str, dict[str, Any], str]] = []
        self.thread: int | None = None
        self.started = threading.Event()
        self.go = asyncio.Event()

    async def open(self) -> None:
        self.thread = threading.get_ident()
        self.log.append("open")

    async def handle(self, task: str, raw: dict[str, Any], tag: str) -> Disposition:
        assert threading.get_ident() == self.thread
        self.seen.append((task, raw, tag))
        self.started.set()
        match raw.get("do"):
            case "requeue":
                return Disposition.REQUEUE
            case "raise":
                raise OSError("stores are away")
            case "wait":
                await self.go.wait()
            case "stall":
                await self._stall()
        return Disposition.ACK

    async def _stall(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            self.log.append("handed back")
            raise

    async def close(self) -> None:
        self.log.append("close")


class Worker:
    """What Celery is to the pool."""

    def __init__(self, grace: float = 10) -> None:
        self.handler = Scripted()
        conf = SimpleNamespace(sluice_handler=self.handler, sluice_grace_seconds=grace)
        self.pool = LoopPool(16, app=SimpleNamespace(conf=conf))
        self.hub = Hub()
        self.outcomes: list[Any] = []
        self.threads: set[int] = set()
        self.pool.on_start()
        self.pool.register_with_event_loop(self.hub)
        self.stopped = False

    def deliver(self, do: str = "", *, body: Any = None) -> None:
        payload = orjson.dumps([[{"do": do}], {}, {}]) if body is None else body
        request = {"properties": {"delivery_tag": f"tag-{do}"}}
        accepted: list[int] = []
        self.pool.on_apply(
            None,
            ("sluice.work", "id", request, payload, "application/json", "utf-8"),
            callback=self._on_outcome,
            accept_callback=lambda pid, _time: accepted.append(pid),
        )
        assert len(accepted) == 1

    def _on_outcome(self, outcome: tuple[int, Any, float]) -> None:
        self.threads.add(threading.get_ident())
        self.outcomes.append(outcome)

    def set_going(self) -> None:
        self.pool._loop.call_soon_threadsafe(self.handler.go.set)

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self.pool.on_stop()
            self.pool._loop.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.stop()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker whose grace period is over at once."""
    monkeypatch.setattr(module, "_CANCEL_MARGIN_SECONDS", 1.0)
    worker = Worker(grace=1.0)
    yield worker
    worker.stop()


def test_a_message_reaches_the_handler_and_its_ack_the_main_thread(worker: Worker) -> None:
    worker.deliver("answer")
    worker.hub.turn()
    assert worker.handler.seen == [("sluice.work", {"do": "answer"}, "tag-answer")]
    [(failed, value, seconds)] = worker.outcomes
    assert (failed, value) == (0, None)
    assert seconds >= 0
    assert worker.threads == {threading.get_ident()}
    assert worker.handler.thread != threading.get_ident()


def test_many_messages_run_at_a_time(worker: Worker) -> None:
    for _ in range(10):
        worker.deliver("wait")
    worker.set_going()
    while len(worker.outcomes) < 10:
        worker.hub.turn()
    assert len(worker.handler.seen) == 10


def test_what_the_handler_hands_back_is_rejected_into_its_queue(worker: Worker) -> None:
    worker.deliver("requeue")
    worker.hub.turn()
    [(failed, info, _)] = worker.outcomes
    assert failed == 1
    # What Celery's worker takes out of it, see ``celery.worker.request.Request.on_failure``.
    assert isinstance(info.exception, ExceptionWithTraceback)
    assert isinstance(info.exception.exc, Reject)
    assert info.exception.exc.requeue is True


def test_what_the_handler_fails_on_is_rejected_into_its_queue(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FAULT_PAUSE_SECONDS", 0.0)
    worker.deliver("raise")
    worker.hub.turn()
    [(failed, info, _)] = worker.outcomes
    assert (failed, type(info.exception.exc)) == (1, Reject)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[[]]", b"[[1],{},{}]", b"5", None, memoryview(b"\xff")])
def test_a_body_that_cannot_be_read_reaches_the_handler_as_such(worker: Worker, body: Any) -> None:
    worker.deliver(body=b"null" if body is None else body)
    worker.hub.turn()
    assert [raw for _, raw, _ in worker.handler.seen] == [{"unreadable": True}]


def test_a_body_may_be_a_buffer(worker: Worker) -> None:
    worker.deliver(body=memoryview(b'[[{"do":"answer"}],{},{}]'))
    worker.hub.turn()
    assert worker.handler.seen[0][1] == {"do": "answer"}


def test_a_handler_that_cannot_open_keeps_the_worker_from_starting() -> None:
    class Broken(Scripted):
        async def open(self) -> None:
            raise OSError("no stores")

    conf = SimpleNamespace(sluice_handler=Broken(), sluice_grace_seconds=1)
    pool = LoopPool(1, app=SimpleNamespace(conf=conf))
    with pytest.raises(OSError, match="no stores"):
        pool.on_start()
    pool._loop.call_soon_threadsafe(pool._loop.stop)
    pool._thread.join(5)
    pool._loop.close()


def test_draining_finishes_what_runs_and_acknowledges_it_although_the_hub_stands_still(worker: Worker) -> None:
    for _ in range(3):
        worker.deliver("wait")
    threading.Timer(0.05, worker.set_going).start()
    worker.stop()
    assert [failed for failed, _, _ in worker.outcomes] == [0, 0, 0]
    assert worker.handler.log == ["open", "close"]
    assert not worker.pool._thread.is_alive()


def test_draining_runs_the_promises_that_acknowledgements_are(worker: Worker) -> None:
    kept: list[str] = []
    worker.hub.call_soon(lambda: kept.append("ack"))
    worker.stop()
    assert kept == ["ack"]


def test_a_pool_without_work_stops_at_once(worker: Worker) -> None:
    worker.stop()
    assert worker.handler.log == ["open", "close"]


def test_work_that_outlasts_the_grace_period_is_cancelled(hasty: Worker) -> None:
    hasty.deliver("answer")
    hasty.deliver("stall")
    assert hasty.handler.started.wait(5)
    hasty.stop()
    assert len(hasty.outcomes) == 2
    assert not hasty.pool._running


def test_cancelled_work_has_handed_back_before_the_stores_close(hasty: Worker) -> None:
    hasty.deliver("stall")
    assert hasty.handler.started.wait(5)
    hasty.stop()
    assert hasty.handler.log == ["open", "handed back", "close"]

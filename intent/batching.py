"""Adaptive batching inside one event loop: what waits runs together, and :mod:`intent.batch_policy` says when."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, Generic, Self, TypeVar

from msgspec import Struct

from intent.batch_policy import WINDOW, Limits, Policy
from intent.classifier import Classifier, Prediction
from tasks.errors import NotReady, Overloaded, SluiceError
from tasks.settings import IntentSettings

I = TypeVar("I")  # noqa: E741  (input)
O = TypeVar("O")  # noqa: E741  (output)
R = TypeVar("R", bound=Sized)

_LONG_TEXT: Final = 512
"""Characters. Tokenising fewer takes less than a quarter of a millisecond: not worth a thread."""


class BatcherStats(Struct, frozen=True):
    """Counts since the start: batches run, items in them, items in the largest one; items waiting now; items shed."""

    batches: int
    texts: int
    largest: int
    waiting: int
    shed: int = 0


@dataclass(slots=True, eq=False)
class _Waiter(Generic[O]):
    answer: asyncio.Future[O]
    row: Sized
    since: float


class Batcher(Generic[I, O]):
    """Collects single submissions into batches for a synchronous function.

    Each item is read once, into a row whose length is its size. The function runs in one thread of its own, one batch
    at a time. The one that waited longest is always in the next batch, together with those nearest to it in length,
    so that nobody starves and little is padded. Use it from one event loop only.
    """

    def __init__(
        self,
        read: Callable[[I], R],
        run: Callable[[Sequence[R]], Sequence[O]],
        policy: Policy,
        *,
        is_long: Callable[[I], bool] = lambda item: False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Batch calls to ``run``, which gives one output for each row, in their order.

        ``read`` makes a row of an item: on the event loop, or in another thread where ``is_long`` says so.
        ``clock`` gives seconds.
        """
        self._read: Callable[[I], Sized] = read
        self._run: Callable[[Sequence[Any]], Sequence[O]] = run
        self._is_long = is_long
        self._policy = policy
        self._clock = clock
        self._waiting: deque[_Waiter[O]] = deque()
        self._readings: set[asyncio.Future[Sized]] = set()
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sluice-read")
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sluice-batch")
        self._running = False
        self._soon: asyncio.Handle | None = None
        self._held: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._batches = self._texts = self._largest = self._shed = 0

    @property
    def stats(self) -> BatcherStats:
        """Return what has been done so far."""
        return BatcherStats(self._batches, self._texts, self._largest, len(self._waiting), self._shed)

    async def submit(self, item: I, *, shed: bool = False) -> O:
        """Return the output for ``item``. Cancelling this call leaves its neighbours alone.

        With ``shed`` it is refused at once where the batch that it would be in is expected to miss the objective.

        Raises:
            NotReady: the batcher is closed.
            Overloaded: the objective cannot be met, and ``shed`` was asked for.
            Exception: whatever reading or running this item raised.
        """
        if self._closed:
            raise NotReady("the batcher is closed: make another one")
        answer: asyncio.Future[O] = asyncio.get_running_loop().create_future()
        if self._is_long(item):
            self._read_aside(item, answer, shed)
        else:
            self._admit(self._read(item), answer, shed)
        return await answer

    async def close(self) -> None:
        """Answer what waits, take nothing more, and end the threads. May be called again."""
        self._closed = True
        if self._readings:
            await asyncio.wait(self._readings)
        if self._held:
            self._wake(asyncio.get_running_loop())
        await self._idle.wait()
        self._readers.shutdown(wait=True)
        self._executor.shutdown(wait=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _read_aside(self, item: I, answer: asyncio.Future[O], shed: bool) -> None:
        def is_read(reading: asyncio.Future[Sized]) -> None:
            self._readings.discard(reading)
            if error := reading.exception():
                _answer(answer, error)
            elif not answer.done():
                self._admit(reading.result(), answer, shed)

        reading = asyncio.get_running_loop().run_in_executor(self._readers, self._read, item)
        self._readings.add(reading)
        reading.add_done_callback(is_read)

    def _admit(self, row: Sized, answer: asyncio.Future[O], shed: bool) -> None:
        now, tokens = self._clock(), len(row)
        self._policy.arrived(tokens, now)
        if shed:
            expected = self._policy.expected(tokens, [(len(waiter.row), waiter.since) for waiter in self._waiting], now)
            if expected > self._policy.limits.latency:
                self._shed += 1
                answer.set_exception(_overloaded(expected, self._policy.limits.latency))
                return
        self._waiting.append(_Waiter(answer, row, now))
        self._idle.clear()
        if not self._running:
            self._wake(answer.get_loop())

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._held:
            self._held.cancel()
            self._held = None
        if self._soon is None:
            # After what is due in the loop already: what that submits is in the same batch.
            self._soon = loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop, hold: bool = True) -> None:
        """Start the next batch, or hold it; the session is free."""
        self._soon = self._held = None
        try:
            self._start(loop, hold and not self._closed)
        except BaseException as error:
            # Never leave anybody waiting for what will not come.
            for waiter in self._waiting:
                _answer(waiter.answer, error)
            self._waiting.clear()
            raise
        finally:
            if not self._running and not self._waiting:
                self._idle.set()

    def _start(self, loop: asyncio.AbstractEventLoop, hold: bool) -> None:
        reach = WINDOW * self._policy.limits.max_batch
        while self._waiting and self._waiting[0].answer.done():
            self._waiting.popleft()
        window = [waiter for waiter in islice(self._waiting, reach) if not waiter.answer.done()]
        if not window:
            return
        now = self._clock()
        plan = self._policy.plan([len(waiter.row) for waiter in window], window[0].since, now, hold=hold)
        if plan.until is not None:
            self._held = loop.call_later(plan.until - now, self._turn, loop, False)
            return
        batch = [window[place] for place in plan.places]
        self._executor.submit(self._in_thread, loop, batch, now)
        self._running = True
        self._take(batch, reach)
        self._policy.began(_padded(batch), now)

    def _take(self, batch: list[_Waiter[O]], reach: int) -> None:
        """Take ``batch``, and those who gave up, out of the queue."""
        self._batches += 1
        self._texts += len(batch)
        self._largest = max(self._largest, len(batch))
        taken = set(map(id, batch))
        looked_at = [self._waiting.popleft() for _ in range(min(len(self._waiting), reach))]
        left = [waiter for waiter in looked_at if id(waiter) not in taken and not waiter.answer.done()]
        self._waiting.extendleft(reversed(left))

    def _in_thread(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiter[O]], begun: float) -> None:
        outcomes: list[O | BaseException]
        try:
            outcomes = _each(self._run, [waiter.row for waiter in batch])
        except BaseException as error:  # noqa: BLE001  (it has to reach those who wait)
            outcomes = [error] * len(batch)
        # One hop back, without the two futures and their callbacks that run_in_executor chains.
        loop.call_soon_threadsafe(self._ended, loop, batch, outcomes, begun)

    def _ended(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiter[O]],
        outcomes: list[O | BaseException],
        begun: float,
    ) -> None:
        seconds = self._clock() - begun
        self._running = False
        for waiter, outcome in zip(batch, outcomes, strict=True):
            _answer(waiter.answer, outcome)
        # A batch that failed ran once more, one by one: its time tells nothing.
        failed = any(isinstance(outcome, BaseException) for outcome in outcomes)
        self._policy.ended(_padded(batch), None if failed else seconds)
        self._turn(loop)


def batch_classifier(
    classifier: Classifier, settings: IntentSettings, threshold: float | None = None
) -> Batcher[str, Prediction]:
    """Return a batcher of ``classifier`` bounded by ``settings``; ``threshold`` replaces the model's own."""
    limits = Limits(settings.max_batch, settings.max_batch_tokens, settings.latency_ms / 1000)
    return Batcher(
        classifier.encode,
        partial(classifier.classify_ids, threshold=threshold),
        Policy(limits),
        is_long=lambda text: len(text) > _LONG_TEXT,
    )


def _padded(batch: Sequence[_Waiter[Any]]) -> int:
    return max(len(waiter.row) for waiter in batch) * len(batch)


def _overloaded(expected: float, objective: float) -> Overloaded:
    return Overloaded(
        f"the answer would take about {expected * 1000:.0f} ms, the objective is {objective * 1000:g} ms:"
        " try again later, or raise intent.latency_ms"
    )


def _each(function: Callable[[Sequence[Any]], Sequence[O]], rows: list[Sized]) -> list[O | BaseException]:
    """Run ``function`` on all ``rows``; where that fails, on each alone: none can fail its neighbours."""
    try:
        results = function(rows)
        if len(results) != len(rows):
            raise SluiceError(f"the batch function gave {len(results)} outputs for {len(rows)} inputs")  # noqa: TRY301
        return list(results)
    except Exception as error:  # noqa: BLE001  (it belongs to whoever submitted the item)
        if len(rows) == 1:
            return [error]
    return [outcome for row in rows for outcome in _each(function, [row])]


def _answer(answer: asyncio.Future[O], outcome: O | BaseException) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    elif isinstance(outcome, BaseException):
        reason = NotReady("the batcher's thread ended")
        reason.__cause__ = outcome
        answer.set_exception(reason)
    else:
        answer.set_result(outcome)

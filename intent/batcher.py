"""Adaptive batching inside one event loop: whatever waits runs together as soon as the backend is free."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final, Generic, Self, TypeVar

from msgspec import Struct

from intent.classifier import Classifier, Prediction
from tasks.errors import InvalidInput, NotReady, SluiceError
from tasks.settings import IntentSettings

I = TypeVar("I")  # noqa: E741  (input)
O = TypeVar("O")  # noqa: E741  (output)
R = TypeVar("R")

_WINDOW: Final = 8
"""A batch is chosen from this many batches' worth of those that waited longest: that bounds the choosing."""


class BatcherStats(Struct, frozen=True):
    """Counts since the start: batches run, texts in them, texts in the largest one; and texts waiting now."""

    batches: int
    texts: int
    largest: int
    waiting: int


@dataclass(slots=True, eq=False)
class _Waiter(Generic[I, O]):
    item: I
    answer: asyncio.Future[O]
    length: int | None = field(default=None)


class Batcher(Generic[I, O]):
    """Collects single submissions into batches for a synchronous function.

    No timer: an item that comes while nothing runs is run at once, and what comes meanwhile is the next
    batch. The function runs in one thread of its own, one batch at a time. The one that waited longest is
    always in the next batch, together with those nearest to it in length, so that nobody starves and little
    is padded. Use it from one event loop only.
    """

    def __init__(
        self,
        run: Callable[[Sequence[I]], Sequence[O]],
        *,
        max_batch: int = 32,
        max_batch_tokens: int = 4096,
        lengths: Callable[[Sequence[I]], Sequence[int]] | None = None,
    ) -> None:
        """Batch calls to ``run``, which gives one output for each input, in their order.

        A batch holds at most ``max_batch`` items, and at most ``max_batch_tokens`` tokens once padded (its
        longest item times its count); an item that is longer than that runs alone. ``lengths`` measures items
        in tokens; without it only ``max_batch`` counts.

        Raises:
            InvalidInput: a bound is below 1.
        """
        if max_batch < 1 or max_batch_tokens < 1:
            raise InvalidInput(
                f"max_batch and max_batch_tokens: must be at least 1, are {max_batch}, {max_batch_tokens}"
            )
        self._function = run
        self._lengths = lengths
        self._max_batch = max_batch
        self._max_tokens = max_batch_tokens
        self._waiting: deque[_Waiter[I, O]] = deque()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sluice-batch")
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self._batches = self._texts = self._largest = 0

    @property
    def stats(self) -> BatcherStats:
        """Return what has been done so far."""
        return BatcherStats(self._batches, self._texts, self._largest, len(self._waiting))

    async def submit(self, item: I) -> O:
        """Return the output for ``item``. Cancelling this call leaves its neighbours alone.

        Raises:
            NotReady: the batcher is closed.
            Exception: whatever the function raised for this item.
        """
        if self._closed:
            raise NotReady("the batcher is closed: make another one")
        loop = asyncio.get_running_loop()
        waiter: _Waiter[I, O] = _Waiter(item, loop.create_future())
        self._waiting.append(waiter)
        if self._worker is None:
            # A new task starts in the loop's next round: what this one submits is in the first batch.
            self._worker = loop.create_task(self._drain())
        return await waiter.answer

    async def close(self) -> None:
        """Answer what waits, take nothing more, and end the thread. May be called again."""
        self._closed = True
        if self._worker is not None:
            await asyncio.wait({self._worker})
        self._executor.shutdown(wait=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _drain(self) -> None:
        batch: list[_Waiter[I, O]] = []
        try:
            while self._waiting:
                batch = await self._take()
                if batch:
                    await self._serve(batch)
        except BaseException as error:
            # Never leave anybody waiting for a worker that is gone.
            _abandon([*batch, *self._waiting], error)
            self._waiting.clear()
            raise
        finally:
            self._worker = None

    async def _serve(self, batch: list[_Waiter[I, O]]) -> None:
        self._batches += 1
        self._texts += len(batch)
        self._largest = max(self._largest, len(batch))
        outcomes = await self._in_thread(self._function, [waiter.item for waiter in batch])
        for waiter, outcome in zip(batch, outcomes, strict=True):
            _answer(waiter.answer, outcome)

    async def _take(self) -> list[_Waiter[I, O]]:
        """Choose the next batch and take it out of the queue."""
        window = self._window()
        if self._lengths and len(window) > 1:
            await self._measure(self._lengths, [waiter for waiter in window if waiter.length is None])
            # Some gave up, or could not be measured, while the thread was at it.
            window = [waiter for waiter in window if not waiter.answer.done()]
        chosen = _choose([waiter.length or 0 for waiter in window], self._max_batch, self._max_tokens)
        batch = [window[index] for index in chosen]
        taken = set(map(id, batch))
        looked_at = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._reach))]
        self._waiting.extendleft(
            waiter for waiter in reversed(looked_at) if id(waiter) not in taken and not waiter.answer.done()
        )
        return batch

    @property
    def _reach(self) -> int:
        return _WINDOW * self._max_batch

    def _window(self) -> list[_Waiter[I, O]]:
        while self._waiting and self._waiting[0].answer.done():
            self._waiting.popleft()
        return [waiter for waiter in islice(self._waiting, self._reach) if not waiter.answer.done()]

    async def _measure(self, lengths: Callable[[Sequence[I]], Sequence[int]], new: list[_Waiter[I, O]]) -> None:
        if not new:
            return
        for waiter, length in zip(new, await self._in_thread(lengths, [w.item for w in new]), strict=True):
            if isinstance(length, Exception):
                _answer(waiter.answer, length)
            else:
                waiter.length = length

    async def _in_thread(self, function: Callable[[Sequence[I]], Sequence[R]], items: list[I]) -> list[R | Exception]:
        return await asyncio.get_running_loop().run_in_executor(self._executor, _each, function, items)


def batch_classifier(
    classifier: Classifier, settings: IntentSettings, threshold: float | None = None
) -> Batcher[str, Prediction]:
    """Return a batcher of ``classifier`` bounded by ``settings``; ``threshold`` replaces the model's own."""
    return Batcher(
        partial(classifier.classify, threshold=threshold),
        lengths=classifier.token_lengths,
        max_batch=settings.max_batch,
        max_batch_tokens=settings.max_batch_tokens,
    )


def _choose(lengths: Sequence[int], max_batch: int, max_tokens: int) -> list[int]:
    """Return the places, in order, of the first item and of those nearest to it in length that fit."""
    if not lengths:
        return []
    chosen = [0]
    longest = lengths[0]
    for place in sorted(range(1, len(lengths)), key=lambda place: abs(lengths[place] - lengths[0])):
        longest_then = max(longest, lengths[place])
        if len(chosen) == max_batch:
            break
        if longest_then * (len(chosen) + 1) <= max_tokens:
            chosen.append(place)
            longest = longest_then
    return sorted(chosen)


def _each(function: Callable[[Sequence[I]], Sequence[R]], items: list[I]) -> list[R | Exception]:
    """Run ``function`` on all ``items``; where that fails, on each alone: none can fail its neighbours."""
    try:
        results = function(items)
        if len(results) != len(items):
            raise SluiceError(f"the batch function gave {len(results)} outputs for {len(items)} inputs")  # noqa: TRY301
        return list(results)
    except Exception as error:  # noqa: BLE001  (it belongs to whoever submitted the item)
        if len(items) == 1:
            return [error]
    return [outcome for item in items for outcome in _each(function, [item])]


def _answer(answer: asyncio.Future[O], outcome: O | Exception) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _abandon(waiters: Sequence[_Waiter[I, O]], error: BaseException) -> None:
    for waiter in waiters:
        if waiter.answer.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            waiter.answer.cancel()
        else:
            reason = NotReady("the batcher's worker ended")
            reason.__cause__ = error
            waiter.answer.set_exception(reason)

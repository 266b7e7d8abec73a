"""The open loop of ``sluice bench``: requests come by the clock, whatever became of the earlier ones."""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from handlers.bench.texts import texts
from handlers.bench.watch import TENANT, Advance, Watch
from handlers.producer import AsyncProducer, to_request
from tasks import keys

_LOOK_SECONDS: Final = 0.01
"""How exactly the end of a request is seen."""
_LOOK_SECONDS_EACH: Final = 1 / 50_000
"""Looking at many takes longer, and they are behind anyhow."""
_CHECK_SECONDS: Final = 1.0


def arrivals(rate: float, seconds: float) -> list[float]:
    """Return the times at which requests come, at random, ``rate`` a second for ``seconds``: the same every time."""
    chance = random.Random(1)  # noqa: S311  no secret
    return sorted(chance.uniform(0, seconds) for _ in range(max(round(rate * seconds), 1)))


class Clocked:
    """One open loop: submits at ``times`` (seconds from its start) the texts numbered from ``start``."""

    def __init__(self, producer: AsyncProducer, watch: Watch, times: Sequence[float], *, start: int) -> None:
        self.ids: list[str] = []
        self.latencies: list[float] = []
        """Seconds from the time at which a request was due until it was seen to be done: its result can be read."""
        self._producer = producer
        self._watch = watch
        self._times = times
        self._start = start
        self._begun = 0.0
        self._pending: dict[str, float] = {}

    async def run(self, advance: Advance) -> None:
        """Submit all and wait for all; ``advance`` hears how many are done.

        Raises:
            ResultTimeout: some were not done in time after the last arrival.
        """
        self._begun = time.perf_counter()
        submitting = asyncio.create_task(self._submit_all())
        try:
            await self._follow(submitting, advance)
            await submitting
        finally:
            submitting.cancel()

    async def _follow(self, submitting: asyncio.Task[None], advance: Advance) -> None:
        checked = 0.0
        while self._pending or not submitting.done():
            await self._look()
            advance(len(self.latencies))
            now = time.perf_counter() - self._begun
            if now > self._times[-1] + self._watch.timeout:
                raise self._watch.late(len(self._times) - len(self.latencies), len(self._times))
            if now > checked + _CHECK_SECONDS:
                checked = now
                self._watch.check()
            await asyncio.sleep(_LOOK_SECONDS + len(self._pending) * _LOOK_SECONDS_EACH)

    async def _submit_all(self) -> None:
        async with asyncio.TaskGroup() as accepting:
            first = 0
            while first < len(self._times):
                now = time.perf_counter() - self._begun
                end = bisect_right(self._times, now)
                if end > first:
                    accepting.create_task(self._submit(first, end))
                    first = end
                else:
                    await asyncio.sleep(self._times[first] - now)

    async def _submit(self, first: int, end: int) -> None:
        """Submit those that became due together."""
        requests = [to_request(text, tenant=TENANT) for text in texts(end - first, start=self._start + first)]
        await self._producer.accept(requests)
        self.ids += [request.id for request in requests]
        # Only now: a request that the register does not know yet would look done.
        self._pending.update(zip((request.id for request in requests), self._times[first:end], strict=True))

    async def _look(self) -> None:
        ids = list(self._pending)
        if not ids:
            return
        flags = await self._watch.stores.register.are_open([keys.ref(TENANT, request_id) for request_id in ids])
        now = time.perf_counter() - self._begun
        for request_id, is_open in zip(ids, flags, strict=True):
            if not is_open:
                self.latencies.append(now - self._pending.pop(request_id))

"""The phases of ``sluice bench``: warm-up, a burst, arrivals by the clock, drains of deep queues."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from handlers.bench.clocked import Clocked, arrivals
from handlers.bench.figures import Burst, Depth, OpenLoop, Spent, middle
from handlers.bench.lab import Lab
from handlers.bench.texts import texts
from handlers.bench.watch import TENANT, Advance, Watch
from handlers.producer import AsyncProducer
from tasks.stores.connect import connect

WARM_UP: Final = 60
_WARM_UP_WAVES: Final = 3
_SAMPLED: Final = 200
_LEAST_MEASURED: Final = 1000
"""Shallow queues are drained again and again until this many results are in."""

Bar = Callable[[str, int], Advance]
"""Makes a progress bar from its name and how many there are to do."""


class Bench:
    """The phases on one lab. Use :func:`open_bench`."""

    def __init__(self, producer: AsyncProducer, watch: Watch, bar: Bar) -> None:
        self.watch = watch
        self._producer = producer
        self._bar = bar
        self._submitted = 0

    async def warm_up(self) -> None:
        """Have the workers classify and answer a few: what is loaded at first use is loaded."""
        advance = self._bar("warm-up", WARM_UP)
        for wave in range(1, _WARM_UP_WAVES + 1):
            ids = await self._submit(WARM_UP // _WARM_UP_WAVES)
            await self.watch.until_done(ids, lambda _: None)
            advance(wave * WARM_UP // _WARM_UP_WAVES)

    async def burst(self, requests: int) -> Burst:
        """Submit ``requests`` at once and wait for all results."""
        advance = self._bar("burst", requests)
        meter = self.watch.meter
        before = meter.read()
        ids = await self._submit(requests)
        await self.watch.until_done(ids, advance)
        spent = Spent.between(before, meter.read())
        observer = await self.watch.cost() * spent.seconds
        return Burst(requests, await self.watch.statuses(ids), spent, observer)

    async def open_loop(self, rate: float, seconds: float) -> OpenLoop:
        """Submit ``rate`` requests per second for ``seconds``, at random times, and see when each is done."""
        times = arrivals(rate, seconds)
        advance = self._bar(f"{rate:.3g} a second", len(times))
        loop = Clocked(self._producer, self.watch, times, start=self._submitted)
        before = self.watch.meter.read()
        await loop.run(advance)
        spent = Spent.between(before, self.watch.meter.read())
        self._submitted += len(times)
        return OpenLoop(rate, seconds, await self.watch.statuses(loop.ids), sorted(loop.latencies), spent)

    async def depth(self, waiting: int) -> Depth:
        """Let ``waiting`` requests pile up in front of held workers, then see how fast they are served."""
        rounds = math.ceil(_LEAST_MEASURED / waiting)
        advance = self._bar(f"{waiting:,} waiting", rounds * waiting)
        spent, middle_seconds, middle_results = Spent(0, {}, 0), 0.0, 0
        for number in range(rounds):
            took, samples = await self._drain(waiting, advance, base=number * waiting)
            spent += took
            seconds, results = middle(samples, waiting)
            middle_seconds, middle_results = middle_seconds + seconds, middle_results + results
        return Depth(waiting, rounds, spent, middle_results / middle_seconds)

    async def _drain(self, waiting: int, advance: Advance, *, base: int) -> tuple[Spent, list[tuple[float, int]]]:
        """Return what one drain took, and (seconds, results so far) of each look."""
        lab, meter = self.watch.lab, self.watch.meter
        lab.hold()
        try:
            ids = await self._submit(waiting)
            await self.watch.until_waiting(waiting)
            before = meter.read()
        finally:
            lab.release()
        samples = [(0.0, 0)]

        def seen(done: int) -> None:
            samples.append((time.perf_counter() - before.seconds, done))
            advance(base + done)

        await self.watch.until_done(ids, seen)
        spent = Spent.between(before, meter.read())
        chosen = random.Random(waiting).sample(ids, min(_SAMPLED, waiting))  # noqa: S311  no secret
        await self.watch.statuses(chosen)
        return spent, samples

    async def _submit(self, count: int) -> list[str]:
        ids = await self._producer.submit_many(texts(count, start=self._submitted))
        self._submitted += count
        return ids


@contextlib.asynccontextmanager
async def open_bench(lab: Lab, *, bar: Bar, timeout: float) -> AsyncIterator[Bench]:
    """Connect to the lab's servers and wait for its workers. ``timeout`` is seconds for the results of one phase.

    Raises:
        NotReady: a worker does not start; the message quotes its log.
    """
    async with (
        AsyncProducer(lab.settings, tenant=TENANT) as producer,
        connect(lab.settings) as stores,
    ):
        watch = Watch(lab, stores, lab.meter(), timeout=timeout)
        await watch.ready()
        yield Bench(producer, watch, bar)

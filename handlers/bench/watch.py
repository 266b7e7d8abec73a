"""Sees how far the requests of ``sluice bench`` are, at a cost that does not grow with their number."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from handlers.bench.lab import Lab
from handlers.bench.meter import Meter
from tasks import keys
from tasks.contracts.result import Status
from tasks.errors import InvalidInput, NotReady, ResultTimeout, SluiceError
from tasks.settings import Settings
from tasks.stores.connect import Stores, connect

TENANT: Final = "bench"
LOOK_SECONDS: Final = 0.05
_START_SECONDS: Final = 60.0
_LOOKS_BETWEEN_CHECKS: Final = 10
_CALIBRATION_SECONDS: Final = 0.5
_CHUNK: Final = 1000
_GETS_AT_ONCE: Final = 32

Advance = Callable[[int], None]
"""Told how many are done."""


class Watch:
    """Looks at one lab's queues, register and results. ``timeout`` is seconds for the results of one phase."""

    def __init__(self, lab: Lab, stores: Stores, meter: Meter, *, timeout: float) -> None:
        self.lab = lab
        self.stores = stores
        self.meter = meter
        self.timeout = timeout

    async def open(self) -> int:
        """Return how many requests are open: on a queue, in flight, or waiting in the register.

        A handful of commands, however many requests there are. One that moves just now may be counted twice.
        """
        depths = await self.stores.broker.depths(self.lab.settings.pools)
        delayed = (await self.stores.register.counts())["delayed"]
        return sum(depth.total for depth in depths.values()) + delayed

    async def until_waiting(self, count: int) -> None:
        """Wait until ``count`` requests are on the queue of the first hop: they are announced after acceptance."""
        end = time.monotonic() + self.timeout
        while (await self.stores.broker.depths([keys.INTENT_POOL]))[keys.INTENT_POOL].waiting < count:
            if time.monotonic() > end:
                raise ResultTimeout(f"{count} requests were not all on their queue within {self.timeout:g} s")
            await asyncio.sleep(LOOK_SECONDS)

    async def until_done(self, ids: Sequence[str], advance: Advance) -> None:
        """Wait until all of ``ids`` are done; ``advance`` hears how many, again and again.

        Raises:
            ResultTimeout: they were not in time; it quotes the workers' logs.
            NotReady: a worker has ended.
        """
        end = time.monotonic() + self.timeout
        done = looks = 0
        while True:
            done = max(done, len(ids) - await self.open())
            advance(done)
            if done == len(ids) and not await self._left(ids):
                return
            if time.monotonic() > end:
                raise self.late(await self._left(ids), len(ids))
            looks += 1
            if looks % _LOOKS_BETWEEN_CHECKS == 0:
                self.check()
            await asyncio.sleep(LOOK_SECONDS)

    def check(self) -> None:
        """Look at memory, and whether the workers live."""
        self.meter.weigh()
        self.lab.check()

    def late(self, left: int, total: int) -> ResultTimeout:
        """Return the error of ``left`` results that did not come."""
        return ResultTimeout(
            f"{left} of {total} results did not come within {self.timeout:g} s; "
            f"the workers said last: {self.lab.last_words()}"
        )

    async def cost(self) -> float:
        """Return the CPU seconds that looking costs this process in one second. Nothing else may run here."""
        begun, used = time.perf_counter(), time.process_time()
        while time.perf_counter() < begun + _CALIBRATION_SECONDS:
            await self.open()
            await asyncio.sleep(LOOK_SECONDS)
        self.meter.weigh()
        return (time.process_time() - used) / (time.perf_counter() - begun)

    async def statuses(self, ids: Sequence[str]) -> dict[str, int]:
        """Read the results of ``ids``; return how many have which status.

        Raises:
            SluiceError: a request failed or has no result; the message quotes the first.
        """
        gate = asyncio.Semaphore(_GETS_AT_ONCE)
        wrong: list[str] = []

        async def status(request_id: str) -> str:
            async with gate:
                result = await self.stores.results.get(TENANT, request_id)
            if result is None:
                wrong.append("there is no result")
                return "missing"
            if result.status not in {Status.SUCCEEDED, Status.ESCALATED}:
                wrong.append(result.error.message if result.error else "no reason is given")
            return result.status.value

        counts = Counter(await asyncio.gather(*map(status, ids)))
        if wrong:
            told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
            raise SluiceError(f"not every request was answered ({told}); the first: {wrong[0]}")
        return dict(counts)

    async def ready(self) -> None:
        """Wait until every worker serves every pool.

        Raises:
            NotReady: one does not start; the message quotes its log.
        """
        wanted = {(worker.pid, pool) for worker in self.lab.workers for pool in self.lab.settings.pools}
        end = time.monotonic() + _START_SECONDS
        while True:
            seen = await self.stores.board.workers(since=time.time() - _START_SECONDS)
            if wanted <= {(facts["pid"], facts["pool"]) for facts in seen}:
                return
            self.lab.check()
            if time.monotonic() > end:
                raise NotReady(f"the workers are not ready after {_START_SECONDS:g} s: {self.lab.last_words()}")
            await asyncio.sleep(LOOK_SECONDS)

    async def alone(self) -> None:
        """Raise :class:`InvalidInput` where other workers than the lab's have been at work."""
        await _refuse_workers(self.stores, self.lab.settings, ours={worker.pid for worker in self.lab.workers})

    async def _left(self, ids: Sequence[str]) -> int:
        """Return how many of ``ids`` are open by the register itself."""
        left = 0
        for begin in range(0, len(ids), _CHUNK):
            refs = [keys.ref(TENANT, request_id) for request_id in ids[begin : begin + _CHUNK]]
            left += sum(await self.stores.register.are_open(refs))
        return left


async def refuse_if_busy(settings: Settings) -> None:
    """Raise :class:`InvalidInput` where requests wait or run, or workers serve, on the servers of ``settings``."""
    async with connect(settings) as stores:
        depths = await stores.broker.depths(settings.pools)
        delayed = (await stores.register.counts())["delayed"]
        busy = [f"{pool} {depth.total}" for pool, depth in depths.items() if depth.total]
        busy += [f"in the register {delayed}"] if delayed else []
        if busy:
            raise InvalidInput(
                f"requests wait or run on these servers ({', '.join(busy)}), and the bench's workers would take them: "
                "wait until they are done, or leave out --here"
            )
        await _refuse_workers(stores, settings, ours=set())


async def _refuse_workers(stores: Stores, settings: Settings, *, ours: set[int]) -> None:
    since = time.time() - 3 * settings.leases.heartbeat_seconds
    found = sorted(facts["name"] for facts in await stores.board.workers(since=since) if facts["pid"] not in ours)
    if found:
        raise InvalidInput(
            f"other workers serve these queues ({', '.join(found)}), and the figures would be theirs as well: "
            "stop them and their autoscaler, or leave out --here"
        )

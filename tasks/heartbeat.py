"""One heartbeat for each pool of a process: it extends the leases and in-flight marks of all that runs there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime

from msgspec import Struct

from tasks.errors import LeaseLost
from tasks.log import get_logger
from tasks.settings import LeaseSettings
from tasks.stores.broker import Broker
from tasks.stores.register import Register

log = get_logger()


class _Hold(Struct, eq=False):
    ref: str
    holder: str
    tag: str
    task: asyncio.Task[object]
    released: bool = False
    lost: bool = False


class Heartbeat:
    """Beats every ``heartbeat_seconds``. ``beacon`` is called at each beat, to say that this worker lives."""

    def __init__(
        self,
        *,
        pool: str,
        register: Register,
        broker: Broker,
        settings: LeaseSettings,
        now: Callable[[], datetime],
        beacon: Callable[[int], Awaitable[None]],
    ) -> None:
        self._pool = pool
        self._register = register
        self._broker = broker
        self._settings = settings
        self._now = now
        self._beacon = beacon
        self._holds: dict[str, _Hold] = {}
        self._begun = 0

    @property
    def work(self) -> tuple[int, int]:
        """Return how many leases there were in all, and how many there are."""
        return self._begun, len(self._holds)

    @contextlib.asynccontextmanager
    async def holding(self, ref: str, holder: str, tag: str) -> AsyncIterator[None]:
        """Keep the lease alive inside the block; cancel the block and raise :class:`LeaseLost` if another takes it."""
        task = asyncio.current_task()
        if task is None:
            raise LeaseLost("a lease is held by a task")
        hold = self._holds[holder] = _Hold(ref, holder, tag, task)
        self._begun += 1
        try:
            yield
        except asyncio.CancelledError:
            if not hold.lost:
                raise
            task.uncancel()
            raise LeaseLost(f"{ref}: another attempt took over") from None
        finally:
            del self._holds[holder]

    def release(self, holder: str) -> None:
        """Stop extending a lease that its attempt is about to give up: who takes it next does not take it away."""
        if hold := self._holds.get(holder):
            hold.released = True

    async def run(self) -> None:
        """Beat until cancelled. A store that fails is tried again at the next beat; leases outlast two."""
        while True:
            try:
                await self.beat()
            except Exception as error:  # noqa: BLE001  a heart that stops takes every lease with it
                log.warning("heartbeat failed", error=str(error), leases=len(self._holds))
            await asyncio.sleep(self._settings.heartbeat_seconds)

    async def beat(self) -> None:
        """Extend everything once."""
        holds = [hold for hold in self._holds.values() if not hold.released]
        now = self._now().timestamp()
        if holds:
            kept = await self._register.extend(
                [(hold.ref, hold.holder) for hold in holds], now=now, lease=self._settings.lease_seconds
            )
            for hold, ok in zip(holds, kept, strict=True):
                if not ok and hold.holder in self._holds and not hold.released:
                    hold.lost = True
                    hold.task.cancel()
            await self._broker.touch(self._pool, [hold.tag for hold in holds], now=now)
        await self._beacon(len(holds))

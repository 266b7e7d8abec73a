"""One heartbeat for each pool of a process: it extends the leases and in-flight marks of all that runs there.

It also carries back that a request has ended while an attempt is at it, as where somebody cancelled it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime

from msgspec import Struct

from tasks.errors import LeaseLost, RequestEnded, SluiceError
from tasks.log import get_logger
from tasks.settings import LeaseSettings
from tasks.stores.broker import Broker
from tasks.stores.register import Kept, Lease, Register

log = get_logger()


class _Hold(Struct, eq=False):
    lease: Lease
    tag: str
    task: asyncio.Task[object]
    released: bool = False
    ending: bool = False
    over: SluiceError | None = None


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
    async def holding(self, lease: Lease, tag: str) -> AsyncIterator[None]:
        """Keep the lease alive inside the block; where it is over, cancel the block.

        Raises:
            LeaseLost: another attempt took it.
            RequestEnded: the request, or step, has ended without this attempt.
        """
        task = asyncio.current_task()
        if task is None:
            raise LeaseLost("a lease is held by a task")
        hold = self._holds[lease.holder] = _Hold(lease, tag, task)
        self._begun += 1
        try:
            yield
        except (asyncio.CancelledError, SluiceError):  # what ran may have made an error of its own of it
            if hold.over is None:
                raise
            task.uncancel()
            raise hold.over from None
        finally:
            del self._holds[lease.holder]

    def release(self, holder: str) -> None:
        """Stop extending a lease that its attempt is about to give up: who takes it next does not take it away."""
        if hold := self._holds.get(holder):
            hold.released = True

    def ending(self, holder: str) -> None:
        """Let an attempt be that is about to end its request: that it has ended will be its own doing."""
        if hold := self._holds.get(holder):
            hold.ending = True

    def check(self, holder: str) -> None:
        """Raise unless the attempt goes on: from memory, before each turn of a model, each tool call and each step.

        What an attempt set off may outlive it, and must not go on by itself.

        Raises:
            LeaseLost: another attempt took the lease, or the attempt is over.
            RequestEnded: the request has ended.
        """
        hold = self._holds.get(holder)
        if hold is None:
            raise LeaseLost("the attempt is over")
        if hold.over:
            raise hold.over

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
            found = await self._register.extend(
                [hold.lease for hold in holds], now=now, lease=self._settings.lease_seconds
            )
            for hold, kept in zip(holds, found, strict=True):
                if kept is not Kept.KEPT and hold.lease.holder in self._holds:
                    _stop(hold, kept)
            await self._broker.touch(self._pool, [hold.tag for hold in holds], now=now)
        await self._beacon(len(holds))


def _stop(hold: _Hold, kept: Kept) -> None:
    if hold.released or hold.over or (kept is Kept.ENDED and hold.ending):
        return
    ref = hold.lease.ref
    hold.over = (
        RequestEnded(f"{ref}: has ended") if kept is Kept.ENDED else LeaseLost(f"{ref}: another attempt took over")
    )
    hold.task.cancel()

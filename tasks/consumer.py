"""Takes a pool's messages off its queues and runs the hop on them, many at a time, on one event loop.

Nothing is prefetched: a message is taken when there is a slot for it, so what waits stays visible to the scaler and
free for other workers. Messages are taken, and acknowledged, in groups: what becomes possible while a command is on its
way goes with the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final

from tasks.attempt import Disposition
from tasks.errors import StoreError
from tasks.log import get_logger
from tasks.settings.queues import CANCEL_MARGIN_SECONDS
from tasks.stores.broker import Broker, Delivery, opened

log = get_logger()

MAX_RECEIVE: Final = 64
"""Messages that one command takes at most: a crowd of workers shares a short queue."""
_LOOK_SECONDS: Final = 1.0
"""How often an idle consumer looks for a message that came without ringing."""
_SLOTS_SECONDS: Final = 0.1
"""How long a broker whose calls are paid for is not asked, so that more slots than a few are free."""
_FAULT_PAUSE_SECONDS: Final = 1.0
_RESTORE_SECONDS: Final = 5.0
_RESTORE_LIMIT: Final = 100

Handle = Callable[[dict[str, Any], str], Awaitable[Disposition]]


class Consumer:
    """``handle`` gets a message and the tag of its delivery; it returns what becomes of it.

    A message whose worker gave no sign for ``visibility_seconds`` goes back to its queue.
    """

    def __init__(
        self,
        pool: str,
        broker: Broker,
        handle: Handle,
        *,
        concurrency: int,
        visibility_seconds: float,
        now: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._broker = broker
        self._handle = handle
        self._concurrency = concurrency
        self._visibility = visibility_seconds
        self._now = now
        self._worth = min(broker.batch, concurrency)
        self._running: set[asyncio.Task[None]] = set()
        self._done: list[str] = []
        self._acknowledging: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopping = False

    @property
    def running(self) -> int:
        """Return how many messages are being handled."""
        return len(self._running)

    async def run(self) -> None:
        """Take messages until :meth:`stop`. What runs then goes on running; see :meth:`drain`."""
        restoring = asyncio.create_task(self._restore_forever(), name=f"restore {self._pool}")
        try:
            await self._listen()
            while not self._stopping:
                self._wake.clear()
                free = await self._slots()
                taken = await self._take(free) if free else 0
                if taken == 0 or taken < free:
                    await self._sleep()
        finally:
            restoring.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await restoring

    def stop(self) -> None:
        """Take no more messages."""
        self._stopping = True
        self._wake.set()

    async def drain(self, grace_seconds: float) -> None:
        """Finish what runs within the grace period; at its end cancel what is left, which hands its requests back."""
        self.stop()
        await self._settle(max(grace_seconds - CANCEL_MARGIN_SECONDS, 0.0))
        for task in list(self._running):
            task.cancel()
        await self._settle(CANCEL_MARGIN_SECONDS)

    async def _slots(self) -> int:
        """Return how many messages may be taken; where few, and more pay, after a moment."""
        if 0 < self._concurrency - len(self._running) < self._worth:
            await asyncio.sleep(_SLOTS_SECONDS)
        return 0 if self._stopping else min(self._concurrency - len(self._running), MAX_RECEIVE)

    async def _listen(self) -> None:
        try:
            await self._broker.listen(self._pool, self._wake.set)
        except StoreError as error:
            # Looking every second finds messages too, and the connection listens once it is made.
            log.warning("cannot listen", pool=self._pool, error=str(error))

    async def _take(self, most: int) -> int:
        try:
            deliveries = await self._broker.receive(self._pool, most, now=self._now().timestamp())
        except Exception as error:  # noqa: BLE001  a consumer that ends takes its worker with it
            log.warning("cannot receive", pool=self._pool, error=str(error))
            return 0
        for delivery in deliveries:
            task = asyncio.create_task(self._run(delivery), name=delivery.tag)
            self._running.add(task)
            task.add_done_callback(self._ended)
        return len(deliveries)

    async def _sleep(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._wake.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if len(self._running) >= self._concurrency:
            self._wake.set()
        self._running.discard(task)

    async def _run(self, delivery: Delivery) -> None:
        try:
            disposition = await self._handle(opened(delivery.data), delivery.tag)
        except asyncio.CancelledError:
            # Told to stop before it had begun anything: the message is as good as new.
            disposition = Disposition.REQUEUE
        except Exception:
            # The stores themselves fail: nothing could be written, so nothing may be acknowledged.
            log.exception("message given back to the broker", pool=self._pool)
            with contextlib.suppress(asyncio.CancelledError):  # the message is given back all the same
                await asyncio.sleep(_FAULT_PAUSE_SECONDS)
            disposition = Disposition.REQUEUE
        if disposition is Disposition.ACK:
            self._done.append(delivery.tag)
            if self._acknowledging is None or self._acknowledging.done():
                self._acknowledging = asyncio.create_task(self._acknowledge(), name=f"acknowledge {self._pool}")
            return
        try:
            await self._broker.give_back(self._pool, [delivery.tag])
        except StoreError as error:
            log.warning("not given back, its visibility ends by itself", pool=self._pool, error=str(error))

    async def _acknowledge(self) -> None:
        """Acknowledge what is done, and what becomes done on the way."""
        while self._done:
            tags, self._done = self._done, []
            try:
                await self._broker.acknowledge(self._pool, tags)
            except StoreError as error:
                # The register knows that they ended: seen again, they are acknowledged again.
                log.warning("not acknowledged", pool=self._pool, messages=len(tags), error=str(error))

    async def _settle(self, seconds: float) -> None:
        """Wait for what runs, and for its acknowledgements."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._running or (self._acknowledging and not self._acknowledging.done()):
                    busy: list[asyncio.Task[None]] = [*self._running]
                    if self._acknowledging and not self._acknowledging.done():
                        busy.append(self._acknowledging)
                    await asyncio.wait(busy)

    async def _restore_forever(self) -> None:
        for turn in itertools.count():
            if turn:
                await asyncio.sleep(_RESTORE_SECONDS)
            before = self._now().timestamp() - self._visibility
            try:
                restored = await self._broker.restore(self._pool, before=before, limit=_RESTORE_LIMIT)
            except Exception as error:  # noqa: BLE001  nobody else does it
                log.warning("cannot restore", pool=self._pool, error=str(error))
                continue
            if restored:
                log.warning("messages of a dead worker restored", pool=self._pool, messages=restored)

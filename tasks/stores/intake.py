"""Takes messages off one queue for a pool: call by call while they stand in line, by waiting else.

A wait, such as a long poll of SQS, goes on in the background and rings when it ends. So nobody waits for that of
another queue, and a worker that is told to stop waits for none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tasks.errors import StoreError
from tasks.stores.broker import Delivery

_HOLD_SECONDS: Final = 2.0
"""How long a message that came by a long poll waits for a slot, which another queue's took, before it is given back."""

Poll = Callable[[int, int], Awaitable[list[Delivery]]]
"""Takes at most so many messages, waiting for so many seconds."""


class Intake:
    """``rung`` is called when a long poll ends; ``give_back`` gets what was taken and found no slot."""

    def __init__(
        self,
        poll: Poll,
        give_back: Callable[[Sequence[str]], Awaitable[None]],
        rung: Callable[[], None],
        *,
        batch: int,
        wait_seconds: int,
    ) -> None:
        self._poll = poll
        self._give_back = give_back
        self._rung = rung
        self._batch = batch
        self._wait_seconds = wait_seconds
        self._arrived: deque[Delivery] = deque()
        self._in_line = True  # a worker is started because something waits
        self._waiting = False
        self._error: StoreError | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, most: int) -> list[Delivery]:
        """Return at most ``most`` messages that are there; where there are fewer, begin to wait for the next ones.

        Raises:
            StoreError: the queue cannot be read, now or when it was last waited for.
        """
        error, self._error = self._error, None
        if error:
            raise error
        taken = [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]
        while self._in_line and len(taken) < most:
            wanted = min(self._batch, most - len(taken))
            try:
                more = await self._poll(wanted, 0)
            except StoreError:
                if taken:
                    break  # what is in hand goes first; the next call meets the fault again
                raise
            self._in_line = len(more) == wanted
            taken += more
        if len(taken) < most and not self._waiting and not self._in_line:
            self._waiting = True
            self._start(self._wait(min(self._batch, most - len(taken))))
        return taken

    async def close(self) -> None:
        """Stop waiting, and give back what nobody took."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._return([delivery.tag for delivery in self._arrived])
        self._arrived.clear()

    async def _wait(self, wanted: int) -> None:
        found: list[Delivery] = []
        try:
            found = await self._poll(wanted, self._wait_seconds)
        except StoreError as error:
            self._error = error  # not rung: whoever looks next, in a moment, is told
            return
        finally:
            self._waiting = False
        self._in_line = len(found) == wanted
        self._arrived += found
        self._rung()
        if found:
            await asyncio.sleep(_HOLD_SECONDS)
            left = [delivery for delivery in found if delivery in self._arrived]
            for delivery in left:
                self._arrived.remove(delivery)
            await self._return([delivery.tag for delivery in left])

    async def _return(self, tags: Sequence[str]) -> None:
        if tags:
            with contextlib.suppress(StoreError):  # then their visibility ends by itself
                await self._give_back(tags)

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

"""Calls that many share: what comes at the same time, or soon after, goes with one of them (group commit)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

_Waiting = tuple[T, "asyncio.Future[None]"]


class Company(Generic[T]):
    """Gathers items and hands them to ``send``, as ``split`` groups them: each group is one call.

    A full group goes at once. The rest goes ``patience`` seconds after its first item came, and where the last call was
    ``spacing`` seconds ago or more, at the end of this turn of the loop: who comes alone then waits for nobody.
    """

    def __init__(
        self,
        send: Callable[[list[T]], Awaitable[None]],
        split: Callable[[Sequence[T]], list[list[T]]],
        *,
        most: int,
        spacing: float = 0.0,
        patience: float = 0.0,
    ) -> None:
        """``most`` is the count of a full group."""
        self._send = send
        self._split = split
        self._most = most
        self._spacing = spacing
        self._patience = patience
        self._waiting: list[_Waiting[T]] = []
        self._timer: asyncio.Handle | None = None
        self._sent_at = float("-inf")
        self._calls: set[asyncio.Task[None]] = set()

    async def join(self, items: Sequence[T]) -> None:
        """Return when all ``items`` were sent; raises what ``send`` raises."""
        if not items:
            return
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[None]] = [loop.create_future() for _ in items]
        self._waiting += zip(items, futures, strict=True)
        if len(self._waiting) >= self._most:
            self._go(whole=False)
        if self._waiting and self._timer is None:
            pause = max(self._sent_at + self._spacing - loop.time(), self._patience)
            self._timer = loop.call_later(pause, self._due) if pause > 0 else loop.call_soon(self._due)
        # All of them, whatever becomes of one: an exception that nobody fetched would be logged as lost.
        failed = [end for end in await asyncio.gather(*futures, return_exceptions=True) if end is not None]
        if failed:
            raise failed[0]

    def _due(self) -> None:
        self._timer = None
        self._go(whole=True)

    def _go(self, *, whole: bool) -> None:
        """Send the groups that are full; with ``whole`` the last one too."""
        waiting, self._waiting = self._waiting, []
        ends = iter(waiting)
        groups = [[next(ends) for _ in group] for group in self._split([item for item, _ in waiting])]
        if not whole and len(groups[-1]) < self._most:
            self._waiting = groups.pop()
        if not self._waiting and self._timer:
            self._timer.cancel()
            self._timer = None
        for group in groups:
            call = asyncio.create_task(self._call(group), name="company")
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            self._sent_at = asyncio.get_running_loop().time()

    async def _call(self, group: list[_Waiting[T]]) -> None:
        error: BaseException | None = None
        try:
            await self._send([item for item, _ in group])
        except BaseException as raised:
            error = raised
            if not isinstance(raised, Exception):
                raise
        finally:
            for _, future in group:
                if future.done():
                    continue
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

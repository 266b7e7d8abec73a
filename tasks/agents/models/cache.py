"""The models that a worker holds connections to: those used last, a bounded number of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from tasks.agents.models.backend import Backend

K = TypeVar("K")


class _Entry:
    def __init__(self, made: asyncio.Future[Backend]) -> None:
        self.made = made
        self.users = 0
        self.retired = False


class ModelCache(Generic[K]):
    """Keeps the backends of at most ``size`` models; ``make`` makes the one of a key. For one event loop.

    What is dropped, or replaced, is closed when its last request has ended.
    """

    def __init__(self, make: Callable[[K], Awaitable[Backend]], *, size: int) -> None:
        self._make = make
        self._size = size
        self._entries: dict[K, _Entry] = {}  # used last is last

    @property
    def keys(self) -> tuple[K, ...]:
        """Return what is kept, what was used last at the end."""
        return tuple(self._entries)

    @contextlib.asynccontextmanager
    async def using(self, key: K) -> AsyncIterator[Backend]:
        """Yield the backend of ``key``, which is not closed inside the block. Raises what ``make`` raises."""
        entry = self._entries.pop(key, None) or _Entry(asyncio.ensure_future(self._make(key)))
        self._entries[key] = entry
        entry.users += 1
        try:
            if not entry.made.done():
                await self.resize(self._size)
            # Shielded: others may wait for it too.
            yield await asyncio.shield(entry.made)
        finally:
            entry.users -= 1
            if entry.made.done() and (entry.made.cancelled() or entry.made.exception()):
                self._forget(entry)
            await self._close_if_left(entry)

    async def resize(self, size: int) -> None:
        """Keep at most ``size`` models from now on."""
        self._size = size
        await self.retire(self.keys[: max(len(self._entries) - size, 0)])

    async def retire(self, keys: tuple[K, ...]) -> None:
        """Drop ``keys``: who asks for one again gets a new one."""
        for key in keys:
            entry = self._entries.pop(key)
            entry.retired = True
            await self._close_if_left(entry)

    async def close(self) -> None:
        """Drop all."""
        await self.retire(self.keys)

    def _forget(self, broken: _Entry) -> None:
        for key, entry in tuple(self._entries.items()):
            if entry is broken:
                del self._entries[key]

    async def _close_if_left(self, entry: _Entry) -> None:
        if entry.retired and not entry.users and entry.made.done() and not entry.made.cancelled():
            entry.retired = False  # once
            if entry.made.exception() is None:
                await entry.made.result().close()

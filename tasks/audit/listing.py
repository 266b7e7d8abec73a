"""Compare what a bucket lists with what was sealed, in one pass over both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta

from tasks import keys
from tasks.stores.objects import ReadableStore


class Listing:
    """The listing of segments, read no further than the checkpoints have come. Memory holds what lies between."""

    def __init__(self, store: ReadableStore) -> None:
        self._store = store
        self._keys: AsyncIterator[str] | None = None
        self._next: str | None = None
        self._sealed: set[str] = set()
        self._unsealed: set[str] = set()

    async def start(self, since: datetime | None) -> None:
        """Begin at the segments of ``since``, or at the first."""
        self._keys = self._store.list(keys.AUDIT_PREFIX, after=keys.segment_after(since) if since else "")
        await self._step()

    def sealed(self, names: Iterable[str]) -> None:
        """Note that a checkpoint has these."""
        for name in names:
            if name in self._unsealed:
                self._unsealed.remove(name)
            else:
                self._sealed.add(name)

    async def settle(self, time: datetime, back: timedelta) -> list[str]:
        """Go on to ``time``; return what is listed, in no checkpoint, and older than ``time`` less ``back``."""
        until = keys.segment_after(time) + "~~"
        while self._next is not None and self._next <= until:
            await self._take()
        # What was sealed and is not listed is missed where it is read.
        self._sealed = {name for name in self._sealed if name > until}
        lost = sorted(name for name in self._unsealed if name < keys.segment_after(time - back))
        self._unsealed.difference_update(lost)
        return lost

    async def rest(self) -> list[str]:
        """Return all that is listed and in no checkpoint, and was not returned before; sorted."""
        while self._next is not None:
            await self._take()
        rest, self._unsealed = sorted(self._unsealed), set()
        return rest

    async def _take(self) -> None:
        name = self._next
        if name in self._sealed:
            self._sealed.remove(name)
        elif name is not None:
            self._unsealed.add(name)
        await self._step()

    async def _step(self) -> None:
        self._next = await anext(self._keys, None) if self._keys else None

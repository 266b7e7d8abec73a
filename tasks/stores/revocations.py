"""The list of revoked grants: one hash, entry to Unix time. See :mod:`tasks.access.revoked`."""

from __future__ import annotations

from collections.abc import Mapping

from tasks import keys
from tasks.stores.link import Link


class RedisRevocations:
    """The list on a Redis-protocol server."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def read(self) -> Mapping[str, float]:
        """Return all entries."""
        found = await self._link.call("HGETALL", keys.REVOKED)
        return {entry.decode(): float(until) for entry, until in found.items()}

    async def revoke(self, entry: str, *, until: float) -> None:
        """Void what was granted until ``until``."""
        await self._link.call("HSET", keys.REVOKED, entry, repr(until))

    async def restore(self, entry: str) -> bool:
        """Take an entry off the list; tell whether it was there."""
        return bool(await self._link.call("HDEL", keys.REVOKED, entry))


class MemoryRevocations:
    """The list in memory. For unit tests."""

    def __init__(self) -> None:
        self.entries: dict[str, float] = {}
        self.reads = 0
        self.fail: Exception | None = None

    async def read(self) -> Mapping[str, float]:
        """Return all entries."""
        self.reads += 1
        if self.fail:
            raise self.fail
        return dict(self.entries)

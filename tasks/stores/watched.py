"""What a watch of a bucket has seen: one hash for each prefix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from tasks import keys
from tasks.stores.link import Link

_BEGUN = ""


class Watched(Protocol):
    """The port. Every method raises :class:`StoreError` when the server cannot be reached."""

    async def seen(self, bucket: str, prefix: str) -> dict[str, str] | None:
        """Return the version of each object that was seen, by key; None where nobody ever watched this prefix."""

    async def mark(self, bucket: str, prefix: str, versions: Mapping[str, str]) -> None:
        """Remember that these were seen, and that this prefix is watched."""

    async def forget(self, bucket: str, prefix: str, gone: Iterable[str]) -> None:
        """Forget objects that are there no more."""


class RedisWatched:
    """On a Redis-protocol server."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def seen(self, bucket: str, prefix: str) -> dict[str, str] | None:
        """See the port."""
        found = await self._link.call("HGETALL", keys.watched(bucket, prefix))
        if not found:
            return None
        return {key.decode(): version.decode() for key, version in found.items() if key.decode() != _BEGUN}

    async def mark(self, bucket: str, prefix: str, versions: Mapping[str, str]) -> None:
        """See the port."""
        pairs = [part for pair in versions.items() for part in pair]
        await self._link.call("HSET", keys.watched(bucket, prefix), _BEGUN, "", *pairs)

    async def forget(self, bucket: str, prefix: str, gone: Iterable[str]) -> None:
        """See the port."""
        if fields := list(gone):
            await self._link.call("HDEL", keys.watched(bucket, prefix), *fields)


class MemoryWatched:
    """In memory. For unit tests."""

    def __init__(self) -> None:
        self.prefixes: dict[tuple[str, str], dict[str, str]] = {}

    async def seen(self, bucket: str, prefix: str) -> dict[str, str] | None:
        """See the port."""
        found = self.prefixes.get((bucket, prefix))
        return None if found is None else dict(found)

    async def mark(self, bucket: str, prefix: str, versions: Mapping[str, str]) -> None:
        """See the port."""
        self.prefixes.setdefault((bucket, prefix), {}).update(versions)

    async def forget(self, bucket: str, prefix: str, gone: Iterable[str]) -> None:
        """See the port."""
        for key in gone:
            self.prefixes.get((bucket, prefix), {}).pop(key, None)

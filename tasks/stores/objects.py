"""Object storage: the port, and the in-memory store for unit tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from tasks.errors import AlreadyExists, NotFound


class ObjectStore(Protocol):
    """One bucket. Keys are UTF-8 paths without a leading slash; values are bytes."""

    async def create(self, key: str, data: bytes) -> None:
        """Write ``data`` if ``key`` does not exist; raises :class:`AlreadyExists` if it does."""

    async def get(self, key: str) -> bytes:
        """Return the bytes at ``key``; raises :class:`NotFound`."""

    def read(self, key: str) -> AsyncIterator[bytes]:
        """Yield the bytes at ``key`` in pieces, for what is large; raises :class:`NotFound`."""

    async def exists(self, key: str) -> bool:
        """Tell whether ``key`` exists."""

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[str]:
        """Yield the keys under ``prefix`` (it ends in ``/``), sorted; with ``after`` those that sort after it."""


async def get_at_most(store: ObjectStore, key: str, most: int) -> bytes:
    """Return the first ``most`` bytes at ``key``, and one more where there are more; raises :class:`NotFound`.

    For what somebody else may have put there: an object of many gigabytes must not fill this process's memory.
    """
    data = b""
    async for piece in store.read(key):
        data += piece
        if len(data) > most:
            return data[: most + 1]
    return data


class MemoryObjectStore:
    """An object store in a dictionary. For unit tests."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def create(self, key: str, data: bytes) -> None:
        """See :class:`ObjectStore`."""
        if key in self.objects:
            raise AlreadyExists(key)
        self.objects[key] = data

    async def get(self, key: str) -> bytes:
        """See :class:`ObjectStore`."""
        try:
            return self.objects[key]
        except KeyError:
            raise NotFound(key) from None

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """See :class:`ObjectStore`."""
        yield await self.get(key)

    async def exists(self, key: str) -> bool:
        """See :class:`ObjectStore`."""
        return key in self.objects

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[str]:
        """See :class:`ObjectStore`."""
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > after:
                yield key

"""Object storage: the port, and the in-memory store for unit tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from tasks.contracts.base import sha256, utc_now
from tasks.errors import AlreadyExists, NotFound


class Found(Struct, frozen=True):
    """What a listing says of an object: ``size`` in bytes, and when it was written last.

    ``version`` is its ETag, where the store has one: another content has another.
    """

    key: str
    size: int
    modified: datetime
    version: str = ""


class ReadableStore(Protocol):
    """One bucket, to read. Keys are UTF-8 paths without a leading slash; values are bytes."""

    async def get(self, key: str) -> bytes:
        """Return the bytes at ``key``; raises :class:`NotFound`."""

    def read(self, key: str) -> AsyncIterator[bytes]:
        """Yield the bytes at ``key`` in pieces, for what is large; raises :class:`NotFound`."""

    async def exists(self, key: str) -> bool:
        """Tell whether ``key`` exists."""

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[str]:
        """Yield the keys under ``prefix`` (it ends in ``/``), sorted; with ``after`` those that sort after it."""


class ObjectStore(ReadableStore, Protocol):
    """One bucket."""

    async def create(self, key: str, data: bytes) -> None:
        """Write ``data`` if ``key`` does not exist; raises :class:`AlreadyExists` if it does."""

    async def replace(self, key: str, data: bytes) -> None:
        """Write ``data`` over what is at ``key``. Only for taking contents away: whatever counts is created once."""

    def scan(self, prefix: str, *, after: str = "") -> AsyncIterator[Found]:
        """Yield what a listing says of the objects that :meth:`list` names."""


async def get_at_most(store: ReadableStore, key: str, most: int) -> bytes:
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

    def __init__(self, now: Callable[[], datetime] = utc_now) -> None:
        self.objects: dict[str, bytes] = {}
        self._now = now
        self._modified: dict[str, datetime] = {}

    async def create(self, key: str, data: bytes) -> None:
        """See :class:`ObjectStore`."""
        if key in self.objects:
            raise AlreadyExists(key)
        await self.replace(key, data)

    async def replace(self, key: str, data: bytes) -> None:
        """See :class:`ObjectStore`."""
        self.objects[key] = data
        self._modified[key] = self._now()

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

    async def scan(self, prefix: str, *, after: str = "") -> AsyncIterator[Found]:
        """See :class:`ObjectStore`."""
        async for key in self.list(prefix, after=after):
            data = self.objects[key]
            yield Found(key, len(data), self._modified.get(key, self._now()), sha256(data))

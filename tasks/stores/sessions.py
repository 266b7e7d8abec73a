"""Sessions in object storage: each version is created once, so the version is the fence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import islice
from typing import Final

from msgspec import Struct, structs

from tasks import keys
from tasks.contracts.base import parse_versioned
from tasks.contracts.session import SessionVersion
from tasks.errors import AlreadyExists, NotFound
from tasks.stores.objects import ObjectStore
from tasks.stores.session_cache import Remembered, SessionCache

_LARGEST_STUB: Final = 512
"""Bytes above which no version is one of a deleted session."""
_AT_ONCE: Final = 32


class SessionSummary(Struct, frozen=True):
    """What a listing says of a session: its newest ``version``, when that was written, and the bytes of all."""

    session_id: str
    version: int
    bytes: int
    saved_at: datetime
    deleted: bool = False


class SessionStore:
    """The sessions of all tenants in one bucket. ``cache`` saves listings; the objects are the truth."""

    def __init__(self, store: ObjectStore, cache: SessionCache | None = None) -> None:
        self._store = store
        self._cache = cache

    async def remembered(self, tenant: str, session_id: str) -> Remembered | None:
        """Return what the cache says of the newest version."""
        return await self._cache.get(tenant, session_id) if self._cache else None

    async def latest(self, tenant: str, session_id: str, *, hint: Remembered | None = None) -> SessionVersion | None:
        """Return the newest version, or None for a session that has none yet.

        With a ``hint`` at a version that is there the versions are not listed, but looked through from it on.
        """
        known = None if hint is None else hint.version or await self._get(tenant, session_id, hint.number)
        if known is None:
            return await self._listed(tenant, session_id)
        newer = await self._get(tenant, session_id, known.version + 1)
        if newer is None:
            return known
        return await self._listed(tenant, session_id, after=newer.version) or newer

    async def get(self, tenant: str, session_id: str, version: int) -> SessionVersion:
        """Return one version; raises :class:`NotFound`."""
        return parse_versioned(SessionVersion, await self._store.get(keys.session(tenant, session_id, version)))

    async def create(self, version: SessionVersion) -> None:
        """Write a version; raises :class:`AlreadyExists` if another turn took its place."""
        key = keys.session(version.tenant, version.session_id, version.version)
        await self._store.create(key, version.to_bytes())

    async def keep(self, version: SessionVersion) -> None:
        """Have the cache remember ``version``, whose result is there. It does not fail."""
        if self._cache:
            await self._cache.keep(version)

    async def delete(self, deletion: SessionVersion) -> bool:
        """Create the version that deletes a session; tell whether no turn took its place.

        From then on no attempt can go on from what was before. The contents are taken away by :meth:`erase`.
        """
        try:
            await self.create(deletion)
        except AlreadyExists:
            return False
        if self._cache:
            await self._cache.point(deletion)
        return True

    async def erase(self, deletion: SessionVersion) -> AsyncIterator[int]:
        """Take the contents of all versions before ``deletion`` away; yields each version's number when that is done.

        Their keys stay: an attempt that was held up for long must find its place taken.
        """
        prefix = keys.session_prefix(deletion.tenant, deletion.session_id)
        async for found in self._store.scan(prefix):
            _, number = keys.parse_session(found.key)
            if number >= deletion.version:
                break
            was_erased = found.size <= _LARGEST_STUB and await self._is_deletion(found.key)
            if not was_erased:
                await self._store.replace(found.key, deletion.changed(version=number).to_bytes())
            yield number

    async def summaries(self, tenant: str) -> list[SessionSummary]:
        """Return the sessions of a tenant that have a version, by id, from a listing of its versions."""
        found: dict[str, SessionSummary] = {}
        small: set[str] = set()
        async for item in self._store.scan(keys.sessions(tenant)):
            name, number = keys.parse_session(item.key)
            before = found[name].bytes if name in found else 0
            found[name] = SessionSummary(name, number, before + item.size, item.modified)
            (small.add if item.size <= _LARGEST_STUB else small.discard)(name)
        # Too small to say without a look whether they are of deleted sessions.
        unclear = iter(small)
        while names := list(islice(unclear, _AT_ONCE)):
            newest = [keys.session(tenant, name, found[name].version) for name in names]
            looked = await asyncio.gather(*map(self._is_deletion, newest))
            for name, is_deletion in zip(names, looked, strict=True):
                found[name] = structs.replace(found[name], deleted=is_deletion)
        return list(found.values())

    async def _is_deletion(self, key: str) -> bool:
        return parse_versioned(SessionVersion, await self._store.get(key)).result is None

    async def _get(self, tenant: str, session_id: str, version: int) -> SessionVersion | None:
        try:
            return await self.get(tenant, session_id, version)
        except NotFound:
            return None

    async def _listed(self, tenant: str, session_id: str, *, after: int = 0) -> SessionVersion | None:
        """Return the newest version above ``after``, by a listing."""
        prefix = keys.session_prefix(tenant, session_id)
        start = keys.session(tenant, session_id, after) if after else ""
        newest = max([key async for key in self._store.list(prefix, after=start)], default=None)
        return None if newest is None else parse_versioned(SessionVersion, await self._store.get(newest))

"""Sessions in object storage: each version is created once, so the version is the fence."""

from __future__ import annotations

from tasks import keys
from tasks.contracts.base import parse_versioned
from tasks.contracts.session import SessionVersion
from tasks.stores.objects import ObjectStore


class SessionStore:
    """The sessions of all tenants in one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def latest(self, tenant: str, session_id: str) -> SessionVersion | None:
        """Return the newest version, or None for a session that has none yet."""
        newest = max([key async for key in self._store.list(keys.session_prefix(tenant, session_id))], default=None)
        return None if newest is None else parse_versioned(SessionVersion, await self._store.get(newest))

    async def create(self, version: SessionVersion) -> None:
        """Write a version; raises :class:`AlreadyExists` if another turn took its place."""
        key = keys.session(version.tenant, version.session_id, version.version)
        await self._store.create(key, version.to_bytes())

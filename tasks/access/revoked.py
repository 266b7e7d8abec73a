"""Grants that were taken back before their time: by request, by subject, or by key.

A process keeps a copy of the list and reads it anew when the copy is ``grants.revocation_seconds`` old and somebody
asks. So a revocation holds everywhere that long after it was made, and costs a hop a look-up. A list that cannot be
read stops the work, it does not wave it through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Protocol

from tasks import keys
from tasks.access.grants import Grant
from tasks.errors import Denied


class Revocations(Protocol):
    """The list: entry to Unix time; what was granted until then is void. See :mod:`tasks.stores.revocations`."""

    async def read(self) -> Mapping[str, float]:
        """Return all entries; raises :class:`StoreError` where it cannot."""


class RevocationList:
    """A copy of the list, at most ``max_age`` seconds old when it is asked. ``clock`` counts seconds, whence ever."""

    def __init__(self, store: Revocations, *, max_age: float, clock: Callable[[], float]) -> None:
        self._store = store
        self._max_age = max_age
        self._clock = clock
        self._entries: Mapping[str, float] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def check(self, grant: Grant) -> None:
        """Raise :class:`Denied` if ``grant`` was revoked; :class:`StoreError` if the list cannot be read."""
        if self._clock() - self._read_at >= self._max_age:
            await self._refresh()
        if not self._entries:
            return
        for entry in entries_of(grant):
            until = self._entries.get(entry)
            if until is not None and grant.claims.iat <= until:
                when = datetime.fromtimestamp(until, UTC).isoformat()
                raise Denied(f"grant: revoked at {when} ({entry})")

    async def _refresh(self) -> None:
        """Read the list once for all who wait for it."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="revocations")
        # Whoever is cancelled must not take the others' reading along.
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        asked = self._clock()
        self._entries = await self._store.read()
        self._read_at = asked


def entries_of(grant: Grant) -> Iterator[str]:
    """Yield the entries that would revoke ``grant``."""
    claims = grant.claims
    yield keys.revoked_request(claims.tenant, claims.jti)
    yield keys.revoked_subject(claims.tenant, claims.sub)
    if claims.act:
        yield keys.revoked_subject(claims.tenant, claims.act.sub)
    for kid in grant.kids:
        yield keys.revoked_key(kid)

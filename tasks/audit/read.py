"""Read the trail: the records of a request, or those that a search names. It checks nothing."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from tasks import keys
from tasks.audit import segment
from tasks.contracts.audit import AuditRecord
from tasks.contracts.base import parse_versioned
from tasks.errors import IntegrityError
from tasks.stores.objects import ObjectStore

DELAY: Final = timedelta(minutes=10)
"""How much later than its records a segment's key may be, with clocks that differ."""
_AHEAD: Final = 32
_BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Wanted:
    """Which records; what is None is not asked for. ``since`` and ``until`` bound the records' times."""

    request_id: str | None = None
    tenant: str | None = None
    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, record: AuditRecord) -> bool:
        """Tell whether this is one of them."""
        pairs = (
            (self.request_id, record.request_id),
            (self.tenant, record.tenant),
            (self.actor, record.actor),
            (self.action, record.action.value),
        )
        return (
            all(asked in (None, found) for asked, found in pairs)
            and (self.since is None or record.time >= self.since)
            and (self.until is None or record.time <= self.until)
        )

    @property
    def needles(self) -> list[bytes]:
        """Return texts that a line with such a record holds, for a look before it is parsed."""
        return [text.encode() for text in (self.request_id, self.tenant, self.actor, self.action) if text]


def born(request_id: str) -> datetime | None:
    """Return when the producer made an id, if it is a UUIDv7 and so says it; None for any other id."""
    try:
        made = UUID(request_id)
    except ValueError:
        return None
    if made.version != 7:
        return None
    return datetime.fromtimestamp((made.int >> 80) / 1000, UTC)


async def fetched(
    store: ObjectStore, *, since: datetime | None = None, until: datetime | None = None
) -> AsyncIterator[tuple[str, bytes]]:
    """Yield (key, bytes) of the segments whose keys lie between the times, sorted by key, read ahead."""
    ahead: deque[tuple[str, asyncio.Task[bytes]]] = deque()
    after = keys.segment_after(since) if since and since > _BEGINNING else ""
    before = keys.segment_after(until) if until else "~"
    try:
        async for key in store.list(keys.AUDIT_PREFIX, after=after):
            if key > before:
                break
            ahead.append((key, asyncio.ensure_future(store.get(key))))
            if len(ahead) >= _AHEAD:
                oldest, task = ahead.popleft()
                yield oldest, await task
        while ahead:
            oldest, task = ahead.popleft()
            yield oldest, await task
    finally:
        for _, task in ahead:
            task.cancel()


async def find(store: ObjectStore, wanted: Wanted) -> AsyncIterator[AuditRecord]:
    """Yield the records that match, by segment: memory does not grow with their number.

    Raises:
        IntegrityError: a segment cannot be read; it names it.
    """
    needles = wanted.needles
    until = wanted.until + DELAY if wanted.until else None
    async for key, data in fetched(store, since=_start(wanted), until=until):
        try:
            lines = segment.unpack(data).lines
        except segment.Broken as error:
            raise IntegrityError(f"{key}: {error.reason}; `sluice audit verify` says more") from error
        for line in lines:
            if all(needle in line for needle in needles):
                record = parse_versioned(AuditRecord, line)
                if wanted.matches(record):
                    yield record


def _start(wanted: Wanted) -> datetime | None:
    made = born(wanted.request_id) if wanted.request_id else None
    start = made - DELAY if made else _BEGINNING
    return max(start, wanted.since - DELAY) if wanted.since else start


async def read(store: ObjectStore, *, request_id: str | None = None) -> list[AuditRecord]:
    """Return the records of ``request_id``, or all, by time."""
    found = [record async for record in find(store, Wanted(request_id=request_id))]
    return sorted(found, key=_when)


async def search(store: ObjectStore, wanted: Wanted, limit: int) -> list[AuditRecord]:
    """Return the newest ``limit`` records that match, by time; no more than these are held."""
    newest: list[tuple[tuple[datetime, str, int], AuditRecord]] = []
    async for record in find(store, wanted):
        heapq.heappush(newest, (_when(record), record))
        if len(newest) > limit:
            heapq.heappop(newest)
    return [record for _, record in sorted(newest, key=lambda pair: pair[0])]


def _when(record: AuditRecord) -> tuple[datetime, str, int]:
    return record.time, record.stream, record.sequence

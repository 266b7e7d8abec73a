"""Read the trail: the records of a request, or those that a search names.

Of what it shows it checks the signature, where there are keys to check with; not that nothing is missing.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from tasks import keys
from tasks.audit import segment
from tasks.audit.check import present
from tasks.audit.faults import Kind
from tasks.audit.segment import Ring
from tasks.contracts.audit import AuditRecord
from tasks.contracts.base import parse_versioned
from tasks.errors import IntegrityError, MalformedMessage, NewerSchema
from tasks.stores.objects import ReadableStore

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


Skipped = Callable[[str, str], None]
"""Hears of what is left out: the key of a segment, and why."""


def refuse(key: str, reason: str) -> None:
    """Leave nothing out: raise :class:`IntegrityError`."""
    raise IntegrityError(f"{key}: {reason}; `sluice audit verify` says more")


async def fetched(
    store: ReadableStore, *, since: datetime | None = None, until: datetime | None = None
) -> AsyncIterator[tuple[str, bytes]]:
    """Yield (key, bytes) of the segments whose keys lie between the times, sorted by key, read ahead."""
    ahead: deque[tuple[str, asyncio.Task[bytes | None]]] = deque()
    after = keys.segment_after(since) if since and since > _BEGINNING else ""
    before = keys.segment_after(until) if until else "~"
    try:
        async for key in store.list(keys.AUDIT_PREFIX, after=after):
            if key > before:
                break
            ahead.append((key, asyncio.create_task(present(store, key))))
            if len(ahead) >= _AHEAD:
                oldest, task = ahead.popleft()
                if (data := await task) is not None:
                    yield oldest, data
        while ahead:
            oldest, task = ahead.popleft()
            if (data := await task) is not None:
                yield oldest, data
    finally:
        for _, task in ahead:
            task.cancel()


def matching(key: str, found: segment.Unpacked, wanted: Wanted, ring: Ring | None) -> dict[int, AuditRecord]:
    """Return the records of a segment that ``wanted`` names, by their place.

    With ``ring`` only of a segment that holds: anybody who can write to the bucket could put others there. A segment
    in which nothing matches is not checked.

    Raises:
        segment.Broken: it does not hold, or a record in it is none.
    """
    needles = wanted.needles
    shown = {}
    for place, line in enumerate(found.lines):
        if all(needle in line for needle in needles):
            try:
                record = parse_versioned(AuditRecord, line)
            except (MalformedMessage, NewerSchema) as error:
                raise segment.Broken(Kind.ALTERED, str(error), found.header.first + place) from error
            if wanted.matches(record):
                shown[place] = record
    if shown and ring is not None:
        segment.check_parts(key, found, ring)
    return shown


async def find(
    store: ReadableStore, wanted: Wanted, *, ring: Ring | None = None, skipped: Skipped = refuse
) -> AsyncIterator[AuditRecord]:
    """Yield the records that match, by segment: memory does not grow with their number.

    ``skipped`` hears of segments that are left out, because they cannot be read or, with ``ring``, do not hold.
    """
    until = wanted.until + DELAY if wanted.until else None
    async for key, data in fetched(store, since=_start(wanted), until=until):
        try:
            shown = matching(key, segment.unpack(data), wanted, ring)
        except segment.Broken as error:
            skipped(key, error.reason)
            continue
        for record in shown.values():
            yield record


def _start(wanted: Wanted) -> datetime | None:
    made = born(wanted.request_id) if wanted.request_id else None
    start = made - DELAY if made else _BEGINNING
    return max(start, wanted.since - DELAY) if wanted.since else start


async def read(
    store: ReadableStore, *, request_id: str | None = None, ring: Ring | None = None, skipped: Skipped = refuse
) -> list[AuditRecord]:
    """Return the records of ``request_id``, or all, by time; see :func:`find`."""
    found = [record async for record in find(store, Wanted(request_id=request_id), ring=ring, skipped=skipped)]
    return sorted(found, key=_when)


async def search(
    store: ReadableStore, wanted: Wanted, limit: int, *, ring: Ring | None = None, skipped: Skipped = refuse
) -> list[AuditRecord]:
    """Return the newest ``limit`` records that match, by time; no more than these are held. See :func:`find`."""
    newest: list[tuple[tuple[datetime, str, int], AuditRecord]] = []
    async for record in find(store, wanted, ring=ring, skipped=skipped):
        heapq.heappush(newest, (_when(record), record))
        if len(newest) > limit:
            heapq.heappop(newest)
    return [record for _, record in sorted(newest, key=lambda pair: pair[0])]


def _when(record: AuditRecord) -> tuple[datetime, str, int]:
    return record.time, record.stream, record.sequence

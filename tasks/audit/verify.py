"""Read the audit back and check its chains. Needs only the objects, not the system that wrote them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson

from tasks import keys
from tasks.contracts.audit import GENESIS, AuditRecord
from tasks.contracts.base import canonical, parse_versioned, sha256
from tasks.errors import MalformedMessage, NewerSchema
from tasks.stores.objects import ObjectStore


@dataclass(frozen=True)
class Fault:
    """What is wrong, and with which record."""

    stream: str
    sequence: int
    problem: str


@dataclass
class Verification:
    """What was read, and what was found. Unsigned chains cannot show that a stream's tail or a stream is missing."""

    streams: int = 0
    segments: int = 0
    records: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Tell whether every chain holds."""
        return not self.faults


async def records(store: ObjectStore) -> AsyncIterator[tuple[str, int, bytes]]:
    """Yield (stream, first sequence of its segment, line) of every record, by stream, in order."""
    segments: dict[str, list[tuple[int, str]]] = defaultdict(list)
    async for key in store.list(keys.AUDIT_PREFIX):
        stream, _, name = key.rpartition("/")
        segments[stream.rpartition("/")[2]].append((int(name.partition(".")[0]), key))
    for stream in sorted(segments):
        for first, key in sorted(segments[stream]):
            for line in (await store.get(key)).splitlines():
                yield stream, first, line


async def read(store: ObjectStore, *, request_id: str | None = None) -> list[AuditRecord]:
    """Return the records of ``request_id``, or all, by time."""
    found = [
        record
        async for _, _, line in records(store)
        if (request_id is None or request_id.encode() in line)
        and (record := parse_versioned(AuditRecord, line))
        and request_id in (None, record.request_id)
    ]
    return sorted(found, key=lambda record: (record.time, record.stream, record.sequence))


async def verify(store: ObjectStore) -> Verification:
    """Check that every stream starts at its genesis and has no gap, and that each record is the one the next names."""
    report = Verification()
    stream, expected, previous, segment = "", 0, GENESIS, -1
    async for name, first, line in records(store):
        if name != stream:
            stream, expected, previous, segment = name, 0, GENESIS, -1
            report.streams += 1
        if first != segment:
            segment = first
            report.segments += 1
        report.records += 1
        try:
            record = parse_versioned(AuditRecord, line)
        except (MalformedMessage, NewerSchema) as error:
            report.faults.append(Fault(stream, expected, f"unreadable: {error}"))
            expected += 1
            continue
        problem = _problem(record, line, stream, expected, previous)
        if problem:
            report.faults.append(Fault(stream, record.sequence, problem))
        expected, previous = record.sequence + 1, sha256(line)
    return report


def _problem(record: AuditRecord, line: bytes, stream: str, expected: int, previous: str) -> str:
    try:
        spelt = canonical(orjson.loads(line))
    except (orjson.JSONDecodeError, RecursionError):
        spelt = b""
    if spelt != line:
        return "not in canonical form"
    if record.stream != stream:
        return f"belongs to stream {record.stream}"
    if record.sequence != expected:
        return f"sequence {expected} expected: a record is missing, repeated or out of order"
    if record.previous != previous:
        return "the record before it was altered or replaced"
    return ""

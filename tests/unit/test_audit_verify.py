"""An altered, dropped, reordered or inserted record is found, and named."""

from collections.abc import Callable

import orjson
import pytest

from tasks.audit.stream import AuditStream
from tasks.audit.verify import Fault, read, verify
from tasks.contracts.base import canonical
from tasks.stores.objects import MemoryObjectStore
from tests.support import build
from tests.support.world import Clock

Lines = list[bytes]


async def write(store: MemoryObjectStore, name: str = "s1", segments: int = 3, records: int = 3) -> None:
    clock = Clock()
    stream = AuditStream(name, store, redact=lambda value: value, now=clock, flush_seconds=3600)
    for segment in range(segments):
        events = [build.event(request_id=f"r{segment}", reason=f"{name} {number}") for number in range(records)]
        await stream.commit(events)
        clock.advance(20 * 3600)
    await stream.close()


@pytest.fixture
async def store() -> MemoryObjectStore:
    """Three segments of three records, on three days."""
    store = MemoryObjectStore()
    await write(store)
    return store


def change(store: MemoryObjectStore, segment: int, edit: Callable[[Lines], Lines]) -> None:
    key = sorted(store.objects)[segment]
    store.objects[key] = b"".join(line + b"\n" for line in edit(store.objects[key].splitlines()))


def altered(line: bytes) -> bytes:
    return canonical({**orjson.loads(line), "decision": "deny"})


async def faults(store: MemoryObjectStore) -> list[int]:
    report = await verify(store)
    assert report.ok is not bool(report.faults)
    assert {fault.stream for fault in report.faults} <= {"s1"}
    return [fault.sequence for fault in report.faults]


async def test_an_untouched_audit_is_whole(store: MemoryObjectStore) -> None:
    await write(store, "s2", segments=1)
    report = await verify(store)
    assert (report.ok, report.streams, report.segments, report.records) == (True, 2, 4, 12)


async def test_no_audit_at_all_is_whole() -> None:
    report = await verify(MemoryObjectStore())
    assert (report.ok, report.streams) == (True, 0)


async def test_the_record_after_an_altered_one_no_longer_fits(store: MemoryObjectStore) -> None:
    change(store, 1, lambda lines: [lines[0], altered(lines[1]), lines[2]])
    report = await verify(store)
    assert report.faults == [Fault("s1", 5, "the record before it was altered or replaced")]


async def test_an_altered_record_at_the_end_of_a_segment_is_found_in_the_next(store: MemoryObjectStore) -> None:
    change(store, 0, lambda lines: [*lines[:2], altered(lines[2])])
    assert await faults(store) == [3]


@pytest.mark.parametrize(("dropped", "named"), [(0, 4), (1, 5), (2, 6)])
async def test_a_dropped_record_leaves_a_gap(store: MemoryObjectStore, dropped: int, named: int) -> None:
    change(store, 1, lambda lines: lines[:dropped] + lines[dropped + 1 :])
    assert await faults(store) == [named]


async def test_a_missing_segment_in_the_middle_is_a_gap(store: MemoryObjectStore) -> None:
    del store.objects[sorted(store.objects)[1]]
    report = await verify(store)
    assert [(fault.sequence, fault.problem.partition(":")[0]) for fault in report.faults] == [
        (6, "sequence 3 expected")
    ]


async def test_a_missing_first_segment_is_a_gap(store: MemoryObjectStore) -> None:
    del store.objects[min(store.objects)]
    assert await faults(store) == [3]


async def test_reordered_records_are_named(store: MemoryObjectStore) -> None:
    change(store, 1, lambda lines: [lines[1], lines[0], lines[2]])
    assert await faults(store) == [4, 3, 5]


async def test_an_inserted_record_is_named(store: MemoryObjectStore) -> None:
    change(store, 1, lambda lines: [lines[0], altered(lines[0]), *lines[1:]])
    found = await faults(store)
    assert found[0] == 3
    assert len(found) == 2


async def test_a_repeated_record_is_named(store: MemoryObjectStore) -> None:
    change(store, 2, lambda lines: [*lines, lines[-1]])
    assert await faults(store) == [8]


async def test_a_record_of_another_stream_is_named(store: MemoryObjectStore) -> None:
    other = MemoryObjectStore()
    await write(other, "s2")
    key = sorted(store.objects)[1]
    store.objects[key] = other.objects[key.replace("s1", "s2")]
    report = await verify(store)
    assert {fault.problem for fault in report.faults[:3]} == {"belongs to stream s2"}


async def test_another_spelling_of_the_same_record_is_named(store: MemoryObjectStore) -> None:
    change(store, 1, lambda lines: [lines[0].replace(b'":', b'": '), *lines[1:]])
    report = await verify(store)
    assert report.faults[0] == Fault("s1", 3, "not in canonical form")


@pytest.mark.parametrize("garbage", [b"{", b"[]", b'{"schema_version":"1.0"}', b'{"schema_version":"7.0"}', b"\xff"])
async def test_a_line_that_is_no_record_is_named(store: MemoryObjectStore, garbage: bytes) -> None:
    change(store, 1, lambda lines: [lines[0], garbage, lines[2]])
    report = await verify(store)
    assert [fault.sequence for fault in report.faults] == [4, 5]
    assert report.faults[0].problem.startswith("unreadable")


async def test_every_stream_is_looked_at(store: MemoryObjectStore) -> None:
    await write(store, "s0", segments=1)
    await write(store, "s9", segments=1)
    for key in sorted(store.objects):
        if "/s1/" not in key:
            store.objects[key] = store.objects[key].replace(b"tester", b"nobody", 1)
    report = await verify(store)
    assert [(fault.stream, fault.sequence) for fault in report.faults] == [("s0", 1), ("s9", 1)]


async def test_the_records_of_one_request_are_read_in_order(store: MemoryObjectStore) -> None:
    await write(store, "s0", segments=2)
    records = await read(store, request_id="r1")
    assert [record.reason for record in records] == ["s0 0", "s0 1", "s0 2", "s1 0", "s1 1", "s1 2"]
    assert await read(store, request_id="none") == []
    assert len(await read(store)) == 15

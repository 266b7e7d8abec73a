"""A chain that many write to at once, few writes for many records, and nothing lost when the store fails."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tasks import keys
from tasks.access.sources import throwaway
from tasks.audit import stream as module
from tasks.audit.faults import Verification
from tasks.audit.read import read
from tasks.audit.segment import unpack
from tasks.audit.stream import AuditStream
from tasks.audit.verify import verify
from tasks.contracts.audit import GENESIS, Action
from tasks.contracts.base import canonical
from tasks.errors import AlreadyExists, StoreError
from tasks.stores.objects import ObjectStore
from tests.support import build
from tests.support.clock import Clock
from tests.support.world import FlakyStore

KEYS = throwaway()
NAME = "s1~h1~b1"


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", (0.001,))


def open_stream(store: FlakyStore, **fields: Any) -> AuditStream:
    standard = {
        "host": "h1",
        "signer": KEYS.signer("audit:s1"),
        "redact": lambda value: value,
        "now": Clock(),
        "flush_seconds": 3600,
        "boot": lambda: "b1",
    }
    return AuditStream("s1", store, **{**standard, **fields})


async def verified(store: ObjectStore) -> Verification:
    return await verify(store, KEYS.ring)


@pytest.fixture
async def stream(store: FlakyStore) -> AsyncIterator[AuditStream]:
    stream = open_stream(store)
    yield stream
    await stream.close()


async def until(condition: Any) -> None:
    """Let other tasks run until ``condition`` holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_records_are_chained_from_genesis_in_order(store: FlakyStore, stream: AuditStream) -> None:
    records = [stream.report(build.event(request_id=f"r{index}")) for index in range(3)]
    await stream.commit()
    assert [record.sequence for record in records] == [0, 1, 2]
    assert [record.previous for record in records] == [GENESIS, records[0].hash(), records[1].hash()]
    assert await read(store) == records
    assert (await verified(store)).ok


async def test_a_record_says_when_where_and_what(stream: AuditStream) -> None:
    event = build.event(reason="because", details={"n": 1, "ok": True, "ms": 1.5, "s": "x"})
    record = stream.report(event)
    assert (record.time, record.stream) == (build.EPOCH, NAME)
    assert {name: getattr(record, name) for name in event.__struct_fields__} == msgspec.structs.asdict(event)


async def test_a_commit_returns_when_its_records_are_durable(store: FlakyStore, stream: AuditStream) -> None:
    store.free.clear()
    commit = asyncio.create_task(stream.commit([build.event()]))
    await until(lambda: store.writes)
    assert not commit.done()
    store.free.set()
    await commit
    assert len(await read(store)) == 1


async def test_many_commits_at_once_need_few_writes(store: FlakyStore, stream: AuditStream) -> None:
    async with asyncio.TaskGroup() as group:
        for index in range(500):
            group.create_task(stream.commit([build.event(request_id=f"r{index}")]))
    assert len(store.writes) <= 3
    report = await verified(store)
    assert (report.ok, report.records) == (True, 500)


async def test_what_arrives_during_a_write_shares_the_next_one(store: FlakyStore, stream: AuditStream) -> None:
    store.free.clear()
    first = asyncio.create_task(stream.commit([build.event()]))
    await until(lambda: store.writes)
    rest = [asyncio.create_task(stream.commit([build.event()])) for _ in range(50)]
    await asyncio.sleep(0)
    store.free.set()
    await asyncio.gather(first, *rest)
    assert store.writes == [keys.segment(NAME, first, build.EPOCH) for first in (0, 1)]


async def test_commits_that_come_close_together_share_a_write_and_one_after_a_pause_waits_for_nobody(
    store: FlakyStore, stream: AuditStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SPACING_SECONDS", 0.2)
    monkeypatch.setattr(module, "_MOST_SPACING_SECONDS", 0.2)
    async with asyncio.timeout(0.15):
        await stream.commit([build.event(request_id="first")])
    close = [asyncio.create_task(stream.commit([build.event(request_id=f"r{index}")])) for index in range(5)]
    await asyncio.sleep(0.05)
    close.append(asyncio.create_task(stream.commit([build.event(request_id="late")])))
    await asyncio.gather(*close)
    assert len(store.writes) == 2
    await asyncio.sleep(0.25)
    async with asyncio.timeout(0.15):
        await stream.commit([build.event(request_id="after")])
    assert len(store.writes) == 3


async def test_a_commit_of_nothing_waits_for_what_was_reported_before(store: FlakyStore, stream: AuditStream) -> None:
    await stream.commit()
    assert store.writes == []
    stream.report(build.event())
    await stream.commit()
    assert len(store.writes) == 1
    await stream.commit()
    assert len(store.writes) == 1


async def test_a_report_becomes_durable_by_itself(store: FlakyStore) -> None:
    stream = open_stream(store, flush_seconds=0.001)
    stream.report(build.event())
    await until(lambda: store.objects)
    await stream.close()


async def test_closing_writes_what_is_pending(store: FlakyStore) -> None:
    stream = open_stream(store)
    await stream.close()
    stream.report(build.event())
    await stream.close()
    await stream.close()
    assert [record.action for record in await read(store)] == [Action.REQUEST_ACCEPTED, Action.STREAM_CLOSED]


async def test_a_stream_says_that_it_ends_and_is_not_used_again(store: FlakyStore) -> None:
    boots = iter(("b1", "b2", "b3"))
    stream = open_stream(store, boot=lambda: next(boots))
    await stream.commit([build.event()])
    await stream.close()
    await stream.commit([build.event()])
    assert [record.stream for record in await read(store)].count("s1~h1~b2") == 1
    await stream.close()
    assert (await verified(store)).ok


async def test_a_store_that_fails_and_recovers_loses_and_reorders_nothing(
    store: FlakyStore, stream: AuditStream
) -> None:
    store.fail = StoreError("away")
    commits = [asyncio.create_task(stream.commit([build.event(request_id=f"r{index}")])) for index in range(5)]
    await until(lambda: len(store.writes) >= 3)
    assert not any(commit.done() for commit in commits)
    store.fail = None
    await asyncio.gather(*commits, stream.commit([build.event(request_id="r5")]))
    assert [record.request_id for record in await read(store)] == [f"r{index}" for index in range(6)]
    assert (await verified(store)).ok


async def test_a_write_that_arrived_although_it_failed_is_not_written_twice(store: FlakyStore) -> None:
    class LostAnswers(FlakyStore):
        async def create(self, key: str, data: bytes) -> None:
            await super().create(key, data)
            if len(self.writes) == 1:
                raise StoreError("the answer was lost")

    lossy = LostAnswers()
    stream = open_stream(lossy)
    await stream.commit([build.event()])
    await stream.commit([build.event()])
    await stream.close()
    assert len(lossy.writes) == 4  # the last one closes the stream
    report = await verified(lossy)
    assert (report.ok, report.records, report.segments) == (True, 3, 3)
    with pytest.raises(AlreadyExists):
        await lossy.create(lossy.writes[0], b"")


async def test_a_large_backlog_becomes_several_segments(
    store: FlakyStore, stream: AuditStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SEGMENT_RECORDS", 10)
    await stream.commit([build.event() for _ in range(25)])
    assert store.writes == [keys.segment(NAME, first, build.EPOCH) for first in (0, 10, 20)]
    assert (await verified(store)).ok


async def test_a_segment_holds_canonical_lines(store: FlakyStore, stream: AuditStream) -> None:
    record = stream.report(build.event(reason="é\n"))
    await stream.commit()
    [segment] = store.objects.values()
    assert unpack(segment).lines == [canonical(record.to_dict())]


async def test_a_commit_that_is_cancelled_does_not_take_its_records_back(
    store: FlakyStore, stream: AuditStream
) -> None:
    store.free.clear()
    commit = asyncio.create_task(stream.commit([build.event()]))
    await until(lambda: store.writes)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    store.free.set()
    await stream.commit([build.event()])
    assert (await verified(store)).records == 2


async def test_what_is_reported_is_redacted_before_it_is_hashed(store: FlakyStore) -> None:
    from tasks.access.redact import Redactor

    stream = open_stream(store, redact=Redactor(["password"]).value)
    event = build.event(reason="password=hunter2", details={"password": "hunter2", "note": "password: hunter2"})
    record = stream.report(event)
    await stream.close()
    assert b"hunter2" not in record.to_bytes()
    assert b"hunter2" not in b"".join(line for data in store.objects.values() for line in unpack(data).lines)
    assert (await verified(store)).ok


@pytest.mark.parametrize("request_id", ["4111111111111111", "token:17", "0190f3a2-6e1b-7c3d-8004-000000000009"])
async def test_a_record_keeps_the_id_of_its_request(store: FlakyStore, request_id: str) -> None:
    from tasks.access.redact import Redactor

    stream = open_stream(store, redact=Redactor(["token"]).value)
    record = stream.report(build.event(request_id=request_id))
    await stream.close()
    assert record.request_id == request_id

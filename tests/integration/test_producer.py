"""The producer on real servers: what it accepted is durable at once, and announced by itself or by the sweeper."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from handlers import producer as module
from handlers.door import Door
from handlers.producer import AsyncProducer
from tasks import keys
from tasks.audit.read import read
from tasks.contracts.result import Status
from tasks.errors import ResultTimeout, StoreError
from tasks.scheduled import open_sweeper
from tasks.settings import Settings
from tasks.stores.connect import Stores
from tests.support import build


@pytest.fixture
async def producer(settings: Settings, stores: Stores, tenant: str) -> AsyncIterator[AsyncProducer]:
    async with AsyncProducer(settings, tenant=tenant) as producer:
        yield producer


async def test_what_was_submitted_is_recorded_and_queued_when_the_producer_closes(
    settings: Settings, stores: Stores, tenant: str
) -> None:
    async with AsyncProducer(settings, tenant=tenant) as producer:
        ids = [await producer.submit(f"What is {number}?") for number in range(5)]
    assert [message["id"] for message in await stores.broker.peek("requests")] == ids
    for request_id in ids:
        [record] = await read(stores.audit, request_id=request_id)
        assert record.action == "request.accepted"


async def test_requests_keep_their_order_on_the_queue(producer: AsyncProducer, stores: Stores) -> None:
    ids = await producer.submit_many(f"What is {number}?" for number in range(350))
    await producer._settle()
    assert [message["id"] for message in await stores.broker.peek("requests", limit=1000)] == ids


async def test_what_cannot_be_announced_is_accepted_all_the_same_and_left_to_the_sweeper(
    settings: Settings, producer: AsyncProducer, stores: Stores, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise StoreError("audit: away")

    monkeypatch.setattr(Door, "announce", fail)
    request_id = await producer.submit("What is a sluice?")
    await producer._settle()
    row = await stores.register.get(keys.ref(tenant, request_id))
    assert row is not None
    assert (row.published, row.recorded) == (False, False)
    later = time.time() + settings.leases.unpublished_seconds + 1
    async with open_sweeper(settings, now=lambda: datetime.fromtimestamp(later, UTC)) as sweeper:
        assert (await sweeper.run_once()).unpublished == 1
    assert [message["id"] for message in await stores.broker.peek("requests")] == [request_id]
    actions = [record.action for record in await read(stores.audit, request_id=request_id)]
    assert actions == ["request.accepted", "request.reenqueued"]


async def test_a_store_that_is_away_holds_up_its_producers(
    producer: AsyncProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = asyncio.Event()
    announced: list[int] = []

    async def wait(_door: Door, rows: Sequence[Any], **_: Any) -> None:
        await back.wait()
        announced.append(len(rows))

    monkeypatch.setattr(module, "_MOST_ANNOUNCING", 3)
    monkeypatch.setattr(Door, "announce", wait)
    for number in range(3):
        await producer.submit(f"What is {number}?")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(producer.submit("one too many"), 0.2)
    back.set()
    await producer.submit("And now?")
    await producer._settle()
    assert sum(announced) == 4


async def test_a_result_is_that_of_the_newest_revision_and_waits_while_one_is_open(
    producer: AsyncProducer, stores: Stores, tenant: str
) -> None:
    asked = build.request(id="r1", tenant=tenant)
    first = build.result(asked, status=Status.ESCALATED)
    await stores.results.create(first)
    assert await producer.result("r1", 0) == first
    row = build.row("r1", tenant=tenant, revision=2)
    await stores.register.open([row], due=time.time() + 60)
    with pytest.raises(ResultTimeout):
        await producer.result("r1", 0)
    waiting = asyncio.create_task(producer.result("r1", 30))
    second = build.result(asked, revision=2, output="answered")
    await stores.results.create(second)
    await stores.register.clear(build.ref(row), revision=2, digest=row.digest, now=time.time(), remember=60)
    assert await waiting == second

"""Searching skips by time, holds little, and says where it cannot read."""

from datetime import timedelta
from pathlib import Path

import pytest

from tasks.audit.read import DELAY, Wanted, born, read, search
from tasks.contracts.words import new_id
from tasks.errors import AlreadyExists, IntegrityError, NotFound
from tasks.stores.folder import FolderObjectStore
from tests.support import build
from tests.support.ledger import Ledger, filled, write


@pytest.fixture
async def ledger() -> Ledger:
    """Four minutes of records, and one a day later."""
    ledger = await filled()
    ledger.clock.advance(24 * 3600)
    await ledger.stream("door").commit([build.event(request_id="late", tenant="acme", actor="alice")])
    return ledger


async def test_the_newest_that_match_are_found_in_order(ledger: Ledger) -> None:
    found = await search(ledger.store, Wanted(), limit=5)
    assert [record.request_id for record in found][-1] == "late"
    assert [record.time for record in found] == sorted(record.time for record in found)
    assert len(found) == 5
    everything = await search(ledger.store, Wanted(), limit=1000)
    assert everything == await read(ledger.store)


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Wanted(tenant="acme"), 1),
        (Wanted(actor="alice"), 1),
        (Wanted(actor="lice"), 0),
        (Wanted(action="request.accepted"), 34),
        (Wanted(action="stream.closed"), 1),
        (Wanted(tenant="acme", action="stream.closed"), 0),
        (Wanted(request_id="r0-0-0"), 1),
        (Wanted(since=build.EPOCH + timedelta(hours=1)), 1),
        (Wanted(until=build.EPOCH + timedelta(hours=1)), 34),
        (Wanted(since=build.EPOCH, until=build.EPOCH), 3),
    ],
)
async def test_each_condition_holds(ledger: Ledger, wanted: Wanted, count: int) -> None:
    assert len(await search(ledger.store, wanted, limit=1000)) == count


async def test_what_lies_outside_of_the_time_is_not_read(ledger: Ledger) -> None:
    for key in ledger.listed()[:-1]:
        ledger.memory.objects[key] = b"damaged"
    assert len(await search(ledger.store, Wanted(since=build.EPOCH + DELAY + timedelta(hours=1)), limit=9)) == 1
    with pytest.raises(IntegrityError, match=r"audit/2030/01/01/00/0000\.000~intent"):
        await read(ledger.store)


async def test_an_id_with_a_time_says_where_to_begin(ledger: Ledger) -> None:
    mine = new_id()
    made = born(mine)
    assert made is not None
    assert born("doc-1") is None
    assert born("0190f3a2-6e1b-4c3d-8004-000000000009") is None
    ledger.clock.time = made
    await write(ledger.stream(), [mine])
    assert [record.request_id for record in await read(ledger.store, request_id=mine)] == [mine]


async def test_a_copy_in_a_folder_is_a_store(ledger: Ledger, tmp_path: Path) -> None:
    copy = FolderObjectStore(tmp_path)
    for key, data in ledger.memory.objects.items():
        await copy.create(key, data)
    for prefix in ("audit/", "checkpoints/", "nothing/"):
        assert [key async for key in copy.list(prefix)] == ledger.listed(prefix)
    after = ledger.listed()[4]
    assert [key async for key in copy.list("audit/", after=after)] == ledger.listed()[5:]
    assert (await ledger.verify(copy, witness=ledger.witness)).ok
    with pytest.raises(AlreadyExists):
        await copy.create(after, b"")
    with pytest.raises(NotFound):
        await copy.get("audit/none")
    assert await copy.exists(after)
    assert not await copy.exists("audit")

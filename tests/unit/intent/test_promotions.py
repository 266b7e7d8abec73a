"""The log of promotions: what serves, who may write the next entry, the way back."""

import asyncio

import pytest

from intent.promotions import PACKAGED, WHOLE, Change, Pinned, Promotion, PromotionLog
from tasks import keys
from tasks.contracts.base import parse_versioned
from tasks.errors import Conflict, InvalidInput, MalformedMessage, NotFound
from tasks.stores.objects import MemoryObjectStore
from tests.support.build import EPOCH

A, B, C = (Pinned("intent", f"m-{name * 12}", name * 64) for name in "abc")
ALICE = Change(who="alice", at=EPOCH, why="better")


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore()


@pytest.fixture
def log(store: MemoryObjectStore) -> PromotionLog:
    return PromotionLog(store, "intent")


async def promote(log: PromotionLog, pinned: Pinned, share: float = WHOLE) -> Promotion:
    entry = await log.promotion(await log.latest(), pinned, share, ALICE)
    await log.append(entry)
    return entry


async def roll_back(log: PromotionLog) -> Promotion:
    entry = await log.rollback(await log.latest(), ALICE)
    await log.append(entry)
    return entry


async def test_where_nothing_was_promoted_there_is_nothing(log: PromotionLog) -> None:
    assert await log.latest() is None
    assert await log.since(0) is None
    with pytest.raises(InvalidInput, match="take back"):
        await log.rollback(None, ALICE)


async def test_a_promotion_names_what_served_before(log: PromotionLog, store: MemoryObjectStore) -> None:
    first, second = await promote(log, A), await promote(log, B)
    assert (first.stable, first.previous, second.stable, second.previous) == (A, "", B, A.version)
    assert await log.latest() == second
    assert [entry async for entry in log.backwards(second)] == [second, first]
    raw = store.objects[keys.promotion("intent", 2)]
    assert parse_versioned(Promotion, raw) == second
    assert (second.number, second.who, second.why, second.at) == (2, "alice", "better", EPOCH)


async def test_the_next_entries_are_noticed_without_a_list(log: PromotionLog) -> None:
    first = await promote(log, A)
    assert await log.since(0) == first
    assert await log.since(1) is None
    await promote(log, B)
    last = await promote(log, C)
    assert await log.since(1) == last


async def test_of_two_promoters_one_loses_and_is_told_to_whom(log: PromotionLog, store: MemoryObjectStore) -> None:
    mine = await log.promotion(await log.latest(), A, WHOLE, ALICE)
    theirs = await log.promotion(await log.latest(), B, WHOLE, Change(who="bob", at=EPOCH))
    results = await asyncio.gather(log.append(mine), log.append(theirs), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), Conflict]
    assert "alice" in str(results[1])
    assert await log.latest() == mine
    assert list(store.objects) == [keys.promotion("intent", 1)]


async def test_an_entry_whose_answer_was_lost_is_written_again_without_a_conflict(log: PromotionLog) -> None:
    entry = await promote(log, A)
    await log.append(entry)
    assert await log.latest() == entry


async def test_a_canary_leaves_the_rest_to_what_serves(log: PromotionLog) -> None:
    await promote(log, A)
    entry = await promote(log, B, 0.1)
    assert (entry.stable, entry.canary, entry.share) == (A, B, 0.1)
    wider = await promote(log, B, 0.5)
    assert (wider.stable, wider.canary) == (A, B)
    whole = await promote(log, B)
    assert (whole.stable, whole.canary, whole.previous) == (B, None, A.version)


async def test_a_canary_may_stand_beside_the_packaged_model(log: PromotionLog) -> None:
    entry = await promote(log, A, 0.25)
    assert (entry.stable, entry.canary) == (PACKAGED, A)
    assert await log.serving_since(entry) is None


async def test_who_serves_since_when_outlasts_canaries(log: PromotionLog) -> None:
    first = await promote(log, A)
    last = await promote(log, B, 0.1)
    assert await log.serving_since(last) == first


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
async def test_a_share_is_above_nothing_and_at_most_the_whole(log: PromotionLog, share: float) -> None:
    with pytest.raises(InvalidInput, match="share"):
        await log.promotion(None, A, share, ALICE)


async def test_what_is_so_already_is_no_promotion(log: PromotionLog) -> None:
    await promote(log, A)
    for share in (WHOLE, 0.1):
        with pytest.raises(InvalidInput, match="already"):
            await promote(log, A, share)
    await promote(log, B, 0.1)
    with pytest.raises(InvalidInput, match="already"):
        await promote(log, B, 0.1)
    assert (await promote(log, A)).canary is None  # the whole for A again: the canary's end


async def test_a_rollback_is_one_more_entry(log: PromotionLog) -> None:
    await promote(log, A)
    await promote(log, B)
    entry = await roll_back(log)
    assert (entry.number, entry.kind, entry.stable, entry.previous) == (3, "rollback", A, B.version)


async def test_a_rollback_ends_a_canary(log: PromotionLog) -> None:
    await promote(log, A)
    await promote(log, B, 0.1)
    entry = await roll_back(log)
    assert (entry.stable, entry.canary) == (A, None)


async def test_rollbacks_go_further_and_further_back_to_the_packaged_model(log: PromotionLog) -> None:
    for pinned in (A, B):
        await promote(log, pinned)
    await promote(log, C, 0.1)
    await promote(log, C)
    assert [(await roll_back(log)).stable for _ in range(3)] == [B, A, PACKAGED]
    with pytest.raises(InvalidInput, match="take back"):
        await roll_back(log)
    await promote(log, C)
    assert (await roll_back(log)).stable == PACKAGED


async def test_an_entry_that_is_none_is_said_to_be_malformed(log: PromotionLog, store: MemoryObjectStore) -> None:
    store.objects[keys.promotion("intent", 1)] = b'{"schema_version":"1.0","family":"intent"}'
    with pytest.raises(MalformedMessage):
        await log.latest()
    with pytest.raises(NotFound):
        await log.read(2)

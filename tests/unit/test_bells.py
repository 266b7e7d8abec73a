"""The first worker of a pool need not wait for the next look; all others do."""

import asyncio

import pytest

from scaling.bells import Bells
from tasks import keys
from tasks.errors import Unreachable
from tasks.stores.broker import MemoryBroker, Parcel

INTENT, AGENTS = keys.INTENT_POOL, "agents.planner"


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


async def ring(broker: MemoryBroker, queue: str) -> None:
    await broker.publish([Parcel(queue, "r", "{}", 0)])


async def heard(bells: Bells, *at_zero: str, within: float = 0.05) -> bool:
    return await bells.wait(within, at_zero)


@pytest.mark.parametrize("queue", ["requests", "requests.high"])
async def test_a_pool_without_workers_wakes(broker: MemoryBroker, queue: str) -> None:
    bells = await Bells.listen(broker, [INTENT, AGENTS])
    waiting = asyncio.create_task(heard(bells, INTENT, AGENTS, within=20))
    await asyncio.sleep(0)
    await ring(broker, queue)
    assert await waiting


async def test_what_rang_during_a_look_is_not_missed_and_counts_once(broker: MemoryBroker) -> None:
    bells = await Bells.listen(broker, [INTENT])
    await ring(broker, "requests")
    assert await heard(bells, INTENT, within=20)
    assert not await heard(bells, INTENT)


async def test_a_pool_that_has_workers_waits_for_the_regular_look(broker: MemoryBroker) -> None:
    bells = await Bells.listen(broker, [INTENT, AGENTS])
    waiting = asyncio.create_task(heard(bells, AGENTS))
    await asyncio.sleep(0)
    await ring(broker, "requests")
    assert not await waiting


async def test_nobody_rings(broker: MemoryBroker) -> None:
    assert not await heard(await Bells.listen(broker, [INTENT]), INTENT)


async def test_a_broker_that_is_away_leaves_the_regular_looks(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Unreachable("redis: refused")

    monkeypatch.setattr(broker, "listen", away)
    assert not await heard(await Bells.listen(broker, [INTENT]), INTENT)

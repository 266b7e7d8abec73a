"""The real register keeps the contract of slots, budgets and usage."""

from __future__ import annotations

import asyncio

import pytest

from tasks import keys
from tasks.stores.connect import Stores
from tasks.stores.redis_register import RedisRegister
from tasks.stores.register import Limits, Opened
from tasks.stores.windows import RedisWindows
from tests.support import build
from tests.support.build import NOW, ref
from tests.support.register_quotas import QuotaContract


@pytest.fixture
def register(stores: Stores) -> RedisRegister:
    return stores.register


class TestQuotas(QuotaContract):
    pass


async def test_many_doors_at_once_give_out_no_slot_twice(stores: Stores, register: RedisRegister) -> None:
    rows = [build.row(f"r{number}", accepted_at=NOW + number) for number in range(200)]
    limits = [Limits(most_open=100, slots=10)]
    opened = await asyncio.gather(*(register.open([row], due=NOW, limits=limits) for row in rows))
    counts = [state for [state] in opened]
    assert (counts.count(Opened.CREATED), counts.count(Opened.THROTTLED), counts.count(Opened.FULL)) == (10, 90, 100)
    released = await asyncio.gather(
        *(register.release("default", slots=10, now=NOW, due=NOW, most=5) for _ in range(9))
    )
    assert released == [[]] * 9


async def test_slots_of_rows_that_are_gone_are_healed(stores: Stores, register: RedisRegister) -> None:
    rows = [build.row(f"r{number}", accepted_at=NOW + number) for number in range(3)]
    await register.open(rows, due=NOW, limits=[Limits(slots=1)] * 3)
    await register.published([(ref(row), row.queue, 0) for row in rows], now=NOW)
    await stores.link.call("DEL", keys.row("default/r0"))
    assert await register.release("default", slots=1, now=NOW, due=NOW, most=5) == []
    await register.heal("default")
    [row] = await register.release("default", slots=1, now=NOW, due=NOW, most=5)
    assert row.id == "r1"


async def test_of_many_processes_one_raises_the_alert(stores: Stores) -> None:
    windows = RedisWindows(stores.link)

    async def claim(number: int, threshold: int) -> int | None:
        return await windows.claim(f"t{threshold}", "acme", f"s#{number}", threshold=threshold, window=60, lease=5)

    for threshold in (1, 7):
        claims = await asyncio.gather(*(claim(number, threshold) for number in range(50)))
        [count] = [count for count in claims if count is not None]
        assert count == threshold
        [winner] = [number for number, count in enumerate(claims) if count]
        assert await claim(winner, threshold) == threshold, "a command that is sent twice is one claim"
        await windows.keep(f"t{threshold}", "acme", f"s#{winner}", window=60)
        assert await claim(99, threshold) is None
        assert 5 < await stores.link.call("TTL", keys.alert_window(f"t{threshold}", "acme")) <= 60

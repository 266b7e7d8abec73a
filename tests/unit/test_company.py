"""Calls that are shared: full groups at once, the rest together and in time, and every fault heard."""

import asyncio
from collections.abc import Sequence

import pytest

from tasks.stores.company import Company


def in_tens(items: Sequence[int]) -> list[list[int]]:
    return [list(items[start : start + 10]) for start in range(0, len(items), 10)]


class Calls:
    """What was sent."""

    def __init__(self) -> None:
        self.made: list[list[int]] = []
        self.fail: Exception | None = None

    async def send(self, items: list[int]) -> None:
        self.made.append(items)
        await asyncio.sleep(0)
        if self.fail:
            raise self.fail

    def company(self, *, spacing: float = 0.0, patience: float = 0.0) -> Company[int]:
        return Company(self.send, in_tens, most=10, spacing=spacing, patience=patience)


@pytest.fixture
def calls() -> Calls:
    return Calls()


async def test_what_comes_in_one_turn_of_the_loop_goes_together(calls: Calls) -> None:
    company = calls.company(spacing=10)
    await asyncio.wait_for(asyncio.gather(*(company.join([number]) for number in range(7))), 1)
    assert calls.made == [[*range(7)]]


async def test_who_comes_soon_after_a_call_waits_for_company_and_no_longer_than_that(calls: Calls) -> None:
    company = calls.company(spacing=0.1)
    await company.join([0])
    began = asyncio.get_running_loop().time()
    first = asyncio.create_task(company.join([1]))
    await asyncio.sleep(0.02)
    await asyncio.gather(first, company.join([2]))
    assert calls.made == [[0], [1, 2]]
    assert asyncio.get_running_loop().time() - began > 0.08


async def test_a_full_group_waits_for_nobody(calls: Calls) -> None:
    company = calls.company(patience=0.1)
    joined = asyncio.create_task(company.join([*range(25)]))
    await asyncio.sleep(0.01)
    assert calls.made == [[*range(10)], [*range(10, 20)]]
    await joined
    assert calls.made[2] == [*range(20, 25)]


async def test_those_that_shared_a_call_share_its_fault(calls: Calls) -> None:
    company = calls.company()
    calls.fail = OSError("away")
    ends = await asyncio.gather(company.join([1]), company.join([2]), return_exceptions=True)
    assert [type(end) for end in ends] == [OSError, OSError]
    calls.fail = None
    await company.join([3])
    assert calls.made == [[1, 2], [3]]


async def test_who_is_cancelled_takes_nobody_with_him(calls: Calls) -> None:
    company = calls.company(patience=0.05)
    gone, stays = asyncio.create_task(company.join([1])), asyncio.create_task(company.join([2]))
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    assert calls.made == [[1, 2]]


async def test_nothing_is_no_call(calls: Calls) -> None:
    await calls.company().join([])
    assert calls.made == []

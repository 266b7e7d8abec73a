"""The register on a real server keeps the contract, and does what the fake does."""

import asyncio

import pytest
from hypothesis import given, settings

from tasks import keys
from tasks.errors import StoreError
from tasks.stores.connect import Stores
from tasks.stores.link import Link
from tasks.stores.memory_register import MemoryRegister
from tasks.stores.redis_register import RedisRegister
from tasks.stores.register import Opened, Verdict
from tests.support import build
from tests.support.build import NOW, ref
from tests.support.register_callbacks import CallbackContract
from tests.support.register_contract import RegisterContract, RevisionContract, SessionContract, begin
from tests.support.register_plans import PlanContract
from tests.support.register_retries import RetryContract
from tests.support.register_sequences import OPERATIONS, Operation, Player


@pytest.fixture
def register(stores: Stores) -> RedisRegister:
    return stores.register


class TestRegister(RegisterContract):
    pass


class TestSessions(SessionContract):
    pass


class TestRevisions(RevisionContract):
    pass


class TestRetries(RetryContract):
    pass


class TestPlans(PlanContract):
    pass


class TestCallbacks(CallbackContract):
    pass


def test_the_fake_does_what_the_real_one_does(servers: dict[str, str]) -> None:
    async def compare(operations: list[Operation]) -> None:
        link = Link(servers["SLUICE_REDIS_URL"])
        try:
            await link.call("FLUSHALL")
            real, fake = Player(RedisRegister(link)), Player(MemoryRegister())
            for done, operation in enumerate(operations):
                assert await real.play(operation) == await fake.play(operation), operations[: done + 1]
                assert await real.view() == await fake.view(), operations[: done + 1]
        finally:
            await link.close()

    with asyncio.Runner() as runner:

        @settings(max_examples=60)
        @given(OPERATIONS)
        def any_sequence(operations: list[Operation]) -> None:
            runner.run(compare(operations))

        any_sequence()


async def test_of_many_that_begin_at_once_one_holds_the_lease(stores: Stores, register: RedisRegister) -> None:
    row = build.row("r1")
    await register.open([row], due=NOW)
    begun = await asyncio.gather(*(begin(register, row, f"h{index}") for index in range(30)))
    verdicts = [one.verdict for one in begun]
    assert verdicts.count(Verdict.STARTED) == 1
    assert verdicts.count(Verdict.HELD) == 29


async def test_of_many_doors_one_creates_the_row(register: RedisRegister) -> None:
    row = build.row("r1")
    answers = await asyncio.gather(*(register.open([row], due=NOW) for _ in range(30)))
    assert sorted(answer for [answer] in answers) == [Opened.CREATED] + [Opened.SAME] * 29


async def test_a_tombstone_is_forgotten_in_time(stores: Stores, register: RedisRegister) -> None:
    row = build.row("r1")
    await register.open([row], due=NOW)
    await register.clear(ref(row), revision=1, digest=row.digest, now=NOW, remember=60)
    assert 0 < await stores.link.call("TTL", keys.done(ref(row))) <= 60
    assert await stores.link.call("KEYS", f"{keys.PREFIX}:*") == [keys.done(ref(row)).encode()]


async def test_every_field_of_a_row_survives(register: RedisRegister) -> None:
    row = build.row("r1", tenant="acme", session="a:b", deadline=NOW + 1 / 3, message='{"text":"日本\\n"}', revision=3)
    other_than_default = row.changed(recorded=True, generation=4, attempts=2, due=NOW + 0.1)
    await register.open([other_than_default], due=NOW)
    assert await register.get("acme/r1") == other_than_default


async def test_thousands_in_one_call(register: RedisRegister) -> None:
    rows = [build.row(f"r{index}") for index in range(2000)]
    assert await register.open(rows, due=NOW) == [Opened.CREATED] * 2000
    await register.published([(ref(row), row.queue, 0) for row in rows], now=NOW)
    assert len(await register.lost("requests", before=NOW, limit=500)) == 500


async def test_a_server_that_is_away_is_a_store_error() -> None:
    link = Link("redis://127.0.0.1:1/0", pauses=(0.01,))
    with pytest.raises(StoreError):
        await RedisRegister(link).get("default/r1")
    await link.close()

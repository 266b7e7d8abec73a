"""What both registers promise of slots, budgets and usage."""

from __future__ import annotations

from tasks.contracts.row import Row, Stage
from tasks.stores.register import Limits, Opened, Register, Spent, Verdict
from tests.support import build
from tests.support.build import NOW, ref
from tests.support.register_contract import begin

DAY = "2030-01-01"
TWO = Limits(most_open=4, slots=2)


async def open_rows(register: Register, *rows: Row, limits: Limits = TWO) -> list[Opened]:
    return await register.open(rows, due=NOW + 10, limits=[limits] * len(rows), day=DAY)


async def end(register: Register, row: Row, spent: Spent | None = None) -> str | None:
    return await register.clear(ref(row), revision=1, digest=row.digest, now=NOW, remember=60, spent=spent)


async def release(register: Register, *, slots: int | None = 2, most: int = 10, tenant: str = "default") -> list[str]:
    rows = await register.release(tenant, slots=slots, now=NOW, due=NOW + 10, most=most)
    return [row.id for row in rows]


class QuotaContract:
    async def test_more_than_the_slots_wait_and_more_than_that_is_full(self, register: Register) -> None:
        rows = [build.row(f"r{number}", accepted_at=NOW + number) for number in range(6)]
        created, throttled, full = Opened.CREATED, Opened.THROTTLED, Opened.FULL
        assert await open_rows(register, *rows) == [created, created, throttled, throttled, full, full]
        assert await open_rows(register, *rows[:3]) == [Opened.SAME] * 3
        assert await register.load("default") == {"open": 4, "admitted": 2, "throttled": 2}
        assert await register.unpublished(now=NOW + 99, limit=10) == ["default/r0", "default/r1"]
        standing = await register.get("default/r2")
        assert standing is not None
        assert (standing.throttled, standing.state) == (True, "parked")
        assert await register.get("default/r5") is None

    async def test_a_slot_that_is_free_goes_to_the_next_in_turn(self, register: Register) -> None:
        rows = [build.row(f"r{number}", accepted_at=NOW + number) for number in range(3)]
        urgent = build.row("high", queue="requests.high", accepted_at=NOW + 9)
        await open_rows(register, *rows, urgent)
        await register.published([(ref(row), row.queue, 0) for row in (*rows, urgent)], now=NOW)
        assert await release(register) == []
        await end(register, rows[0])
        assert await release(register) == ["high"]
        await end(register, rows[1])
        await end(register, urgent)
        assert await release(register) == ["r2"]
        standing = await register.get("default/r2")
        assert standing is not None
        assert (standing.throttled, standing.published, standing.due) == (False, False, NOW + 10)
        assert await register.throttled_tenants() == []
        assert (await begin(register, standing)).verdict is Verdict.STARTED

    async def test_what_the_audit_does_not_have_is_left_to_the_sweeper(self, register: Register) -> None:
        rows = [build.row(f"r{number}", accepted_at=NOW + number) for number in range(3)]
        await open_rows(register, *rows)
        await end(register, rows[0])
        assert await release(register) == []
        assert "default/r2" in await register.unpublished(now=NOW + 10, limit=10)

    async def test_a_mark_does_not_publish_what_waits_for_a_slot(self, register: Register) -> None:
        rows = [build.row(f"r{number}", accepted_at=NOW + number) for number in range(3)]
        await open_rows(register, *rows)
        await register.published([("default/r2", "requests", 0)], now=NOW)
        standing = await register.get("default/r2")
        assert standing is not None
        assert (standing.published, standing.recorded, standing.throttled) == (False, True, True)
        assert await register.lost("requests", before=NOW + 99, limit=10) == []

    async def test_tenants_have_slots_of_their_own(self, register: Register) -> None:
        rows = [build.row("r1", tenant=tenant) for tenant in "abc"]
        assert await open_rows(register, *rows, limits=Limits(slots=1)) == [Opened.CREATED] * 3

    async def test_an_end_in_any_state_leaves_nothing(self, register: Register) -> None:
        rows = [build.row(f"r{number}", accepted_at=NOW + number, deadline=NOW + 1) for number in range(3)]
        await open_rows(register, *rows)
        assert await register.seize(ref(rows[2]), "sweeper", now=NOW, lease=15)
        for row in rows:
            await end(register, row)
        assert await register.load("default") == {"open": 0, "admitted": 0, "throttled": 0}
        assert await release(register) == []

    async def test_without_a_limit_all_that_wait_are_released(self, register: Register) -> None:
        rows = [build.row(f"r{number}", accepted_at=NOW + number) for number in range(4)]
        await open_rows(register, *rows)
        await register.published([(ref(row), row.queue, 0) for row in rows], now=NOW)
        assert await register.throttled_tenants() == ["default"]
        assert await release(register, slots=None, most=1) == ["r2"]
        assert await release(register, slots=None) == ["r3"]

    async def test_a_turn_that_waits_for_the_one_before_it_holds_no_slot(self, register: Register) -> None:
        first, second = (
            build.row(name, session="s", stage=Stage.WORK, queue="agents.planner") for name in ("t1", "t2")
        )
        await open_rows(register, first, second, limits=Limits(slots=2))
        assert (await begin(register, second, "h2")).verdict is Verdict.PARKED
        assert (await register.load("default"))["admitted"] == 1
        assert (await begin(register, first, "h1")).verdict is Verdict.STARTED
        assert await end(register, first) == ref(second)
        assert (await register.load("default"))["admitted"] == 1

    async def test_usage_is_counted_once_for_each_request(self, register: Register) -> None:
        row = build.row("r1")
        await open_rows(register, row)
        spent = Spent(day=DAY, input_tokens=10, output_tokens=5, micros=7, unpriced=1)
        for _ in range(2):
            await end(register, row, spent)
        expected = {"requests": 1, "input_tokens": 10, "output_tokens": 5, "micros": 7, "unpriced": 1}
        assert await register.usage("default", DAY) == expected
        assert (await register.usage("default", "2030-01-02"))["requests"] == 0
        assert (await register.usage("other", DAY))["requests"] == 0

    async def test_a_budget_that_is_used_up_opens_nothing_more_that_day(self, register: Register) -> None:
        row, later = build.row("r1"), build.row("r2")
        await open_rows(register, row)
        await end(register, row, Spent(day=DAY, input_tokens=10, output_tokens=5, micros=7))
        for limits in (Limits(tokens=15), Limits(micros=7)):
            assert await open_rows(register, later, limits=limits) == [Opened.SPENT]
            assert await register.open([later], due=NOW, limits=[limits], day=DAY) == [Opened.SPENT]
        assert await open_rows(register, later, limits=Limits(tokens=16, micros=8)) == [Opened.CREATED]

    async def test_the_next_day_has_a_budget_of_its_own(self, register: Register) -> None:
        row = build.row("r1")
        await open_rows(register, row)
        await end(register, row, Spent(day=DAY, input_tokens=10))
        limits = [Limits(tokens=1)]
        assert await register.open([build.row("r2")], due=NOW, limits=limits, day="2030-01-02") == [Opened.CREATED]

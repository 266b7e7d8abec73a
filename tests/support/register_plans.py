"""What both registers promise of the steps of a plan. Subclasses give the ``register`` fixture."""

from __future__ import annotations

from typing import Any

import pytest

from tasks import keys
from tasks.contracts.row import Row, Stage
from tasks.errors import LeaseLost
from tasks.stores.register import Begun, Branch, Due, Kept, Lease, Opened, Register, Verdict
from tests.support import build
from tests.support.build import NOW, ref
from tests.support.register_contract import LEASE, begin, published

LOOK = NOW + 300
NEEDS = {"a": (), "b": (), "c": ("a", "b"), "d": ("c",)}


def step_row(parent: Row, step: str, **fields: Any) -> Row:
    standard = {"digest": parent.digest, "stage": Stage.WORK, "queue": "agents.responder", "recorded": True}
    row_id = keys.row_id(parent.id, parent.revision, step)
    return build.row(row_id, tenant=parent.tenant, **{**standard, "revision": parent.revision, **fields})


def branches(parent: Row, *left_out: str, vital: bool = True) -> list[Branch]:
    return [Branch(step_row(parent, step), step, needs, vital) for step, needs in NEEDS.items() if step not in left_out]


async def planned(register: Register, *, revision: int = 1) -> Row:
    """A request whose planner has the lease as ``h1``."""
    row = await published(register, build.row("r1", stage=Stage.WORK, queue="agents.planner", revision=revision))
    assert (await begin(register, row)).verdict is Verdict.STARTED
    return row


async def fan_out(register: Register, parent: Row, *ended: str, holder: str = "h1", **fields: Any) -> list[str] | None:
    chosen = branches(parent, *ended, **fields)
    return await register.fan_out(ref(parent), holder, chosen, steps=list(NEEDS), ended=ended, due=NOW + 10, look=LOOK)


async def join(register: Register, parent: Row, step: str, *, ok: bool = True) -> list[str]:
    return await register.join(ref(parent), revision=parent.revision, step=step, ok=ok, now=NOW + 5)


async def finish(register: Register, parent: Row, step: str, *, ok: bool = True) -> list[str]:
    """Do what the tail of a step does."""
    freed = await join(register, parent, step, ok=ok)
    row = step_row(parent, step)
    await register.clear(ref(row), revision=row.revision, digest=row.digest, now=NOW + 5, remember=60)
    return freed


def name(parent: Row, step: str) -> str:
    return keys.ref(parent.tenant, parent.id, parent.revision, step)


class PlanContract:
    async def test_steps_that_need_nothing_are_to_be_published_and_the_others_wait(self, register: Register) -> None:
        parent = await planned(register)
        assert await fan_out(register, parent) == [name(parent, "a"), name(parent, "b")]
        states = {step: (await register.get(name(parent, step))) for step in NEEDS}
        assert {step: row and row.state for step, row in states.items()} == {
            "a": "delayed",
            "b": "delayed",
            "c": "parked",
            "d": "parked",
        }
        assert states["a"] == step_row(parent, "a")

    async def test_the_request_is_parked_without_its_lease_and_looked_at_later(self, register: Register) -> None:
        parent = await planned(register)
        await fan_out(register, parent)
        standing = await register.get(ref(parent))
        assert standing is not None
        assert (standing.state, standing.holder, standing.attempts, standing.generation) == ("parked", "", 0, 1)
        assert await register.lapsed(before=NOW + 999, limit=10) == []
        assert await register.unpublished(now=NOW + 10, limit=10) == [name(parent, "a"), name(parent, "b")]
        assert ref(parent) in await register.unpublished(now=LOOK, limit=10)
        taken = await register.reclaim(ref(parent), Due.UNPUBLISHED, before=LOOK, due=LOOK + 10)
        assert taken is not None
        assert taken.state == "delayed"
        await register.published([(ref(parent), taken.queue, taken.generation)], now=LOOK)
        assert await begin(register, parent, "h2", now=LOOK) == Begun(Verdict.STARTED, 1)

    async def test_fanning_out_twice_is_fanning_out_once(self, register: Register) -> None:
        parent = await planned(register)
        first = await fan_out(register, parent)
        assert await fan_out(register, parent) == first
        standing = await register.get(ref(parent))
        assert standing is not None
        assert standing.generation == 1

    async def test_who_has_lost_the_lease_fans_out_nothing(self, register: Register) -> None:
        parent = await planned(register)
        with pytest.raises(LeaseLost):
            await fan_out(register, parent, holder="other")
        assert await register.get(name(parent, "a")) is None

    async def test_a_step_that_was_the_last_that_another_needed_sets_it_free(self, register: Register) -> None:
        parent = await planned(register)
        await fan_out(register, parent)
        assert await finish(register, parent, "a") == []
        assert await finish(register, parent, "b") == [name(parent, "c")]
        freed = await register.get(name(parent, "c"))
        assert freed is not None
        assert (freed.state, freed.generation) == ("delayed", 1)
        assert name(parent, "c") in await register.unpublished(now=NOW + 5, limit=10)
        waiting = await register.get(name(parent, "d"))
        assert waiting is not None
        assert waiting.state == "parked"

    async def test_the_last_step_wakes_the_request_once(self, register: Register) -> None:
        parent = await planned(register)
        await fan_out(register, parent)
        for step in ("a", "b", "c"):
            assert ref(parent) not in await finish(register, parent, step)
        assert await join(register, parent, "d") == [ref(parent)]
        assert await join(register, parent, "d") == []
        standing = await register.get(ref(parent))
        assert standing is not None
        assert (standing.state, standing.generation) == ("delayed", 2)
        assert ref(parent) in await register.unpublished(now=NOW + 5, limit=10)

    async def test_a_step_that_is_told_twice_counts_once(self, register: Register) -> None:
        parent = await planned(register)
        await fan_out(register, parent)
        for _ in range(4):
            assert await join(register, parent, "a") == []

    async def test_a_vital_step_that_failed_wakes_the_request_and_frees_no_other(self, register: Register) -> None:
        parent = await planned(register)
        await fan_out(register, parent, "a")
        assert await finish(register, parent, "b", ok=False) == [ref(parent)]
        waiting = await register.get(name(parent, "c"))
        assert waiting is not None
        assert waiting.state == "parked"

    async def test_a_step_that_may_fail_frees_others_all_the_same(self, register: Register) -> None:
        parent = await planned(register)
        await fan_out(register, parent, "a", vital=False)
        assert await finish(register, parent, "b", ok=False) == [name(parent, "c")]

    async def test_what_had_ended_before_is_neither_opened_nor_waited_for(self, register: Register) -> None:
        parent = await planned(register)
        assert await fan_out(register, parent, "a", "b") == [name(parent, "c")]
        assert await register.get(name(parent, "a")) is None

    async def test_with_nothing_to_wait_for_the_attempt_keeps_its_lease(self, register: Register) -> None:
        parent = await planned(register)
        await fan_out(register, parent)
        for step in NEEDS:
            await finish(register, parent, step)
        taken = await begin(register, parent, "h2")
        assert taken.verdict is Verdict.STARTED
        # An attempt that looked at the results before the last one was there.
        assert await fan_out(register, parent, "a", "b", "c", holder="h2") is None
        assert await fan_out(register, parent, "a", "b", "c", holder="h2") is None
        standing = await register.get(ref(parent))
        assert standing is not None
        assert standing.holder == "h2"
        assert await register.get(name(parent, "d")) is None

    async def test_a_step_that_ends_while_the_request_is_looked_at_is_not_missed(self, register: Register) -> None:
        parent = await planned(register)
        await fan_out(register, parent, "a", "b", "c")
        await begin(register, parent, "h2")
        assert await finish(register, parent, "d") == []
        assert await fan_out(register, parent, "a", "b", "c", holder="h2") is None

    async def test_a_second_fan_out_opens_only_what_is_gone(self, register: Register) -> None:
        parent = await planned(register)
        await fan_out(register, parent)
        await begin(register, step_row(parent, "a"), "s1")
        await begin(register, parent, "h2")
        assert await fan_out(register, parent, holder="h2") == [name(parent, "b")]
        running = await register.get(name(parent, "a"))
        assert running is not None
        assert running.holder == "s1"

    async def test_a_finished_step_is_not_opened_again(self, register: Register) -> None:
        parent = await planned(register)
        await fan_out(register, parent)
        await finish(register, parent, "a")
        await begin(register, parent, "h2")
        assert await fan_out(register, parent, holder="h2") == [name(parent, "b")]
        assert await register.get(name(parent, "a")) is None

    async def test_with_the_request_go_all_steps_of_its_plan(self, register: Register) -> None:
        parent = await planned(register)
        await fan_out(register, parent)
        await begin(register, step_row(parent, "a"), "s1")
        await register.published([(name(parent, "b"), "agents.responder", 0)], now=NOW)
        await register.clear(ref(parent), revision=1, digest=parent.digest, now=NOW + 5, remember=60)
        assert [await register.get(name(parent, step)) for step in NEEDS] == [None] * 4
        far = NOW + 9999
        assert await register.lapsed(before=far, limit=10) == []
        assert await register.unpublished(now=far, limit=10) == []
        assert await register.lost("agents.responder", before=far, limit=10) == []
        assert await register.load("default") == {"open": 0, "admitted": 0, "throttled": 0}
        assert await join(register, parent, "a") == []

    async def test_a_step_whose_request_ended_is_told_so_where_it_runs_and_dropped_where_it_waits(
        self, register: Register
    ) -> None:
        parent = await planned(register, revision=2)
        await fan_out(register, parent)
        await begin(register, step_row(parent, "a"), "s1")
        await register.published([(name(parent, "b"), "agents.responder", 0)], now=NOW)
        await register.clear(ref(parent), revision=2, digest=parent.digest, now=NOW + 5, remember=60)
        leases = [Lease(name(parent, "a"), "s1", 2)]
        assert await register.extend(leases, now=NOW + 5, lease=LEASE) == [Kept.ENDED]
        verdicts = [(await begin(register, step_row(parent, step), "s2")).verdict for step in "abbc"]
        assert verdicts == [Verdict.FINISHED, Verdict.DROPPED, Verdict.FINISHED, Verdict.FINISHED]
        with pytest.raises(LeaseLost):
            await register.postpone(name(parent, "a"), "s1", due=NOW, counted=False)
        with pytest.raises(LeaseLost):
            await fan_out(register, parent, holder="h2")
        assert await register.get(name(parent, "a")) is None

    async def test_steps_of_another_revision_are_others(self, register: Register) -> None:
        parent = await planned(register, revision=2)
        await fan_out(register, parent)
        assert await register.join(ref(parent), revision=1, step="a", ok=False, now=NOW) == []
        assert name(parent, "a").endswith("r1#r2.a")
        standing = await register.get(ref(parent))
        assert standing is not None
        assert standing.state == "parked"

    async def test_steps_are_no_open_requests_and_take_a_slot_while_they_run(self, register: Register) -> None:
        parent = await planned(register)
        await fan_out(register, parent)
        assert (await register.load("default"))["admitted"] == 1
        await begin(register, step_row(parent, "a"), "s1")
        assert (await register.load("default"))["admitted"] == 2
        await finish(register, parent, "a")
        assert (await register.load("default"))["admitted"] == 1

    async def test_the_row_of_a_step_that_was_lost_is_restored_like_any_other(self, register: Register) -> None:
        row = step_row(await planned(register), "a")
        assert await register.open([row], due=NOW) == [Opened.CREATED]
        assert (await begin(register, row, "s1")).verdict is Verdict.STARTED

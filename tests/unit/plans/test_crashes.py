"""Workers die between any two steps of a planned request: it ends in exactly one result all the same."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import keys
from tasks.audit.verify import verify
from tasks.contracts.base import sha256
from tasks.contracts.request import Request
from tasks.contracts.result import Status
from tests.support.planned import EXECUTOR, PLANNER, Planned
from tests.support.world import RESPONDER, Died, Steps, World

PLANNING = ["plan", "fan_out", "step"]
STEP_TAIL = ["begin", "audit", "result", "join", "notify", "clear"]
JOINING = ["begin", "audit", "result", "notify", "clear"]


def dying(*moments: int) -> Callable[[str], None]:
    """A ``passed`` that dies at these moments, counted over all workers."""
    left, count = set(moments), iter(range(10**6))

    def passed(step: str) -> None:
        moment = next(count)
        if moment in left:
            raise Died(f"{moment}: {step}")

    return passed


async def assert_whole(planned: Planned, asked: Request) -> None:
    """One result, one of each step, a record that names them all, and nothing left over."""
    world = planned.world
    result = await planned.result(asked)
    assert result.status is Status.SUCCEEDED
    assert [node.status for node in result.steps] == [Status.SUCCEEDED] * 6
    results = [key for key in world.data.objects if key.startswith(("results/", "steps/"))]
    assert len(results) == 7
    assert len([key for key in world.data.objects if key.startswith("plans/")]) == 1
    named = {record.details.get("sha256") for record in await world.records(asked)}
    assert {sha256(world.data.objects[key]) for key in results} <= named
    assert (await verify(world.audit_store, world.keys.ring)).ok
    assert world.register.rows == {}
    assert await world.register.counts() == {"leased": 0, "delayed": 0}
    assert not world.broker.queues[keys.DEAD_LETTERS]


async def crash(pool: str, step: str, deliveries: int) -> None:
    """Die at ``step`` of the ``deliveries``-th message of ``pool``."""
    world = World()
    try:
        planned = Planned(world)
        asked = await planned.ask()
        others = [queue for queue in (PLANNER, RESPONDER, EXECUTOR) if queue != pool]
        for delivery in range(1, deliveries + 1):
            while not world.broker.queues[pool]:
                await planned.drain(others)
            if delivery < deliveries:
                await planned.deliver(pool)
        with pytest.raises(Died):
            await planned.deliver(pool, Steps(step))
        await planned.settle()
        await assert_whole(planned, asked)
        if step != "begin":
            assert len(planned.planner.asked) == 1
    finally:
        await world.close()


@pytest.mark.parametrize("step", PLANNING)
async def test_the_planner_dies_while_it_fans_out(step: str) -> None:
    await crash(PLANNER, step, 1)


@pytest.mark.parametrize("step", STEP_TAIL)
async def test_a_step_dies(step: str) -> None:
    await crash(RESPONDER, step, 1)


@pytest.mark.parametrize("step", STEP_TAIL)
async def test_the_last_step_dies(step: str) -> None:
    await crash(RESPONDER, step, 4)


@pytest.mark.parametrize("step", JOINING)
async def test_the_planner_dies_while_it_joins(step: str) -> None:
    await crash(PLANNER, step, 2)


@given(st.sets(st.integers(0, 60), max_size=12), st.booleans())
def test_workers_die_at_any_moments(moments: set[int], duplicate: bool) -> None:
    async def go() -> None:
        world = World()
        # Each moment may cost an attempt of the same step: they must not run out here.
        world.settings = world.settings.changed(queue=world.settings.queue.changed(attempts=20))
        try:
            planned = Planned(world)
            asked = await planned.ask()
            if duplicate:
                # Whatever is published comes twice.
                publish = world.broker.publish

                async def twice(parcels: object) -> None:
                    await publish(parcels)  # type: ignore[arg-type]
                    await publish(parcels)  # type: ignore[arg-type]

                world.broker.publish = twice  # type: ignore[method-assign,assignment]
            await planned.settle(dying(*moments))
            await planned.drain()
            await assert_whole(planned, asked)
        finally:
            await world.close()

    asyncio.run(go())

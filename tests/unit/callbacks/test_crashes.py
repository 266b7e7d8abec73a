"""A process dies between the result and its callback, or in the middle of one: it arrives all the same."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tasks import keys
from tasks.agents.fake import FakeRunner
from tasks.contracts.request import Request
from tasks.settings import CallbackSettings
from tests.support.hooks import CALLBACKS, URL, Hooks, call
from tests.support.world import RESPONDER, Died, Steps, World


@pytest.fixture(autouse=True)
def _secrets(world: World) -> None:
    world.settings = world.settings.changed(callbacks=CallbackSettings(secrets=("env:S",)))


async def assert_told(world: World, asked: Request, hooks: Hooks) -> None:
    """At least once, always the same, and nothing is left behind."""
    assert set(hooks.ids) == {f"default/{asked.id}.r1"}
    assert len({request.content for request in hooks.seen}) == 1
    result = await world.result(asked)
    assert result is not None
    assert hooks.seen[0].content == result.to_bytes()
    assert (await world.actions(asked))["callback.delivered"] >= 1
    assert world.register.rows == {}
    assert await world.register.counts() == {"leased": 0, "delayed": 0}
    assert await world.register.load("default") == {"open": 0, "admitted": 0, "throttled": 0}


async def until_answered(world: World, asked: Request) -> None:
    if world.register.rows.get(f"default/{asked.id}"):
        await world.sweep_until_published(RESPONDER)
        await world.deliver(world.work(FakeRunner("second")), RESPONDER)


async def test_the_tail_opens_the_callback_before_the_register_forgets_the_request(world: World) -> None:
    await world.routed(callback=URL)
    steps = Steps()
    await world.deliver(world.work(passed=steps), RESPONDER)
    assert steps.passed == ["begin", "audit", "result", "callback", "notify", "clear", "callback_published"]


@pytest.mark.parametrize("step", ["begin", "audit", "result", "callback", "notify", "clear", "callback_published"])
async def test_the_worker_that_answers_dies(world: World, step: str) -> None:
    asked = await world.routed(callback=URL)
    with pytest.raises(Died):
        await world.deliver(world.work(passed=Steps(step)), RESPONDER)
    await until_answered(world, asked)
    hooks = Hooks()
    await call(world, hooks)
    assert len(hooks.seen) == 1
    await assert_told(world, asked, hooks)


@pytest.mark.parametrize("step", ["result", "callback", "notify", "clear", "callback_published"])
async def test_the_sweeper_that_ends_it_dies(world: World, step: str) -> None:
    asked = await world.accept(callback=URL, deadline=world.clock() + timedelta(seconds=20))
    world.clock.advance(21)
    with pytest.raises(Died):
        await world.sweeper(Steps(step)).run_once()
    for _ in range(10):
        world.clock.advance(world.settings.leases.heartbeat_seconds)
        await world.sweeper().run_once()
    hooks = Hooks()
    await call(world, hooks)
    assert json.loads(hooks.seen[0].content)["status"] == "expired"
    await assert_told(world, asked, hooks)


@pytest.mark.parametrize(("step", "times"), [("posted", 2), ("told", 2), ("settled", 1)])
async def test_the_worker_that_calls_dies(world: World, step: str, times: int) -> None:
    asked = await world.routed(callback=URL)
    await world.deliver(world.work(), RESPONDER)
    hooks = Hooks()
    with pytest.raises(Died):
        await world.deliver(world.calling(hooks, passed=Steps(step)), CALLBACKS)
    if step != "settled":
        await call(world, hooks)
    assert len(hooks.seen) == times
    await assert_told(world, asked, hooks)


@pytest.mark.parametrize(("step", "letters"), [("letter", 2), ("told", 2), ("settled", 1)])
async def test_the_worker_that_gives_up_dies(world: World, step: str, letters: int) -> None:
    asked = await world.routed(callback=URL)
    await world.deliver(world.work(), RESPONDER)
    with pytest.raises(Died):
        await world.deliver(world.calling(Hooks(410), passed=Steps(step)), CALLBACKS)
    if step != "settled":
        await call(world, Hooks(410))
    assert len(world.broker.queues[keys.DEAD_LETTERS]) == letters
    assert (await world.actions(asked))["callback.failed"] >= 1
    assert world.register.rows == {}

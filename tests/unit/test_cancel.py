"""A request is cancelled, wherever it stands: it has one result, work on it stops, and what waited for it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from tasks import keys
from tasks.agents.fake import FakeRunner
from tasks.agents.types import AgentAnswer, AgentTask
from tasks.attempt import Disposition
from tasks.audit.verify import verify
from tasks.contracts.base import sha256
from tasks.contracts.request import Request
from tasks.contracts.result import Result, Status
from tasks.errors import Conflict, NotFound, RequestEnded, StoreError
from tasks.settings import QuotaSettings, TenantQuota
from tests.support import build
from tests.support.planned import EXECUTOR, PLANNER, Planned
from tests.support.world import RESPONDER, Died, Steps, World

TAIL = ["begin", "audit", "result", "notify", "clear"]


class Busy(FakeRunner):
    """An agent that answers when it is told to, and says what became of it."""

    def __init__(self) -> None:
        super().__init__("done")
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.ended: list[str] = []

    async def run(self, task: AgentTask) -> AgentAnswer:
        self.begun.set()
        try:
            await self.go.wait()
            task.wanted()
        except (asyncio.CancelledError, RequestEnded) as error:
            self.ended.append(type(error).__name__)
            raise
        return await super().run(task)


class Running:
    """An attempt at work, on a task of its own."""

    def __init__(self, world: World, pool: str = RESPONDER) -> None:
        self.world = world
        self.pool = pool
        self.runner = Busy()
        self.hop = world.work(self.runner, pool=pool)

    async def begin(self) -> Running:
        self.task = asyncio.create_task(self.world.deliver(self.hop, self.pool))
        await self.runner.begun.wait()
        return self

    async def beat(self) -> None:
        await self.hop.deps.heartbeat.beat()

    async def end(self) -> Disposition:
        self.runner.go.set()
        return await asyncio.wait_for(self.task, 5)


async def assert_one_end(world: World, asked: Request, status: Status = Status.CANCELLED) -> Result:
    """Exactly one result, which the audit names; chains hold; the register is empty."""
    [key] = [key for key in world.data.objects if key == keys.result(asked.tenant, asked.id)]
    result = await world.result(asked)
    assert result is not None
    assert result.status is status
    named = {record.details.get("sha256") for record in await world.records(asked)}
    assert sha256(world.data.objects[key]) in named
    assert (await verify(world.audit_store, world.keys.ring)).ok
    assert await world.register.get(keys.ref(asked.tenant, asked.id)) is None
    return result


async def test_work_that_runs_is_stopped_by_the_next_heartbeat(world: World) -> None:
    asked = await world.routed()
    running = await Running(world).begin()
    assert (await world.cancel(asked)).status is Status.CANCELLED
    assert running.runner.ended == []
    await running.beat()
    # Acknowledged, and neither handed back nor counted: there is no row that could be.
    assert await asyncio.wait_for(running.task, 5) is Disposition.ACK
    assert running.runner.ended == ["CancelledError"]
    await assert_one_end(world, asked)
    actions = await world.actions(asked)
    assert {name: actions[name] for name in ("request.cancelled", "attempt.discarded", "result.written")} == {
        "request.cancelled": 1,
        "attempt.discarded": 1,
        "result.written": 1,
    }
    assert actions["attempt.failed"] == 0
    [discarded] = [record for record in await world.records(asked) if record.action == "attempt.discarded"]
    assert discarded.reason == "request_ended"
    assert not world.broker.queues[RESPONDER]
    assert await world.register.counts() == {"leased": 0, "delayed": 0}


async def test_what_swallows_its_cancellation_gets_no_further_than_its_next_call(world: World) -> None:
    asked = await world.routed()
    calls: list[str] = []
    begun = asyncio.Event()

    class Deaf(FakeRunner):
        async def run(self, task: AgentTask) -> AgentAnswer:
            begun.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                calls.append("deaf")
            task.wanted()
            calls.append("called")
            return await super().run(task)

    hop = world.work(Deaf())
    task = asyncio.create_task(world.deliver(hop, RESPONDER))
    await begun.wait()
    await world.cancel(asked)
    await hop.deps.heartbeat.beat()
    assert await asyncio.wait_for(task, 5) is Disposition.ACK
    assert calls == ["deaf"]
    assert (await world.actions(asked))["attempt.discarded"] == 1
    await assert_one_end(world, asked)


async def test_an_attempt_that_ends_before_the_heartbeat_is_discarded(world: World) -> None:
    asked = await world.routed()
    running = await Running(world).begin()
    await world.cancel(asked)
    assert await running.end() is Disposition.ACK
    await assert_one_end(world, asked)
    assert (await world.actions(asked))["attempt.discarded"] == 1


async def test_an_attempt_in_its_tail_is_let_be(world: World) -> None:
    """Its own end must not look like somebody else's: what it still has to release would wait for the sweeper."""
    asked = await world.routed(session_id="s")
    hop = world.work()
    clear = world.register.clear

    async def clear_and_beat(*args: Any, **fields: Any) -> str | None:
        released = await clear(*args, **fields)
        await hop.deps.heartbeat.beat()
        return released

    world.register.clear = clear_and_beat  # type: ignore[method-assign]
    assert await world.deliver(hop, RESPONDER) is Disposition.ACK
    await assert_one_end(world, asked, Status.SUCCEEDED)
    assert (await world.actions(asked))["attempt.discarded"] == 0


async def test_a_worker_that_is_told_to_stop_hands_a_cancelled_request_back_to_nobody(world: World) -> None:
    asked = await world.routed()
    running = await Running(world).begin()
    await world.cancel(asked)
    running.task.cancel()
    assert await asyncio.wait_for(running.task, 5) is Disposition.ACK
    await assert_one_end(world, asked)
    assert not world.broker.queues[RESPONDER]


@pytest.mark.parametrize("queue", ["requests", RESPONDER])
async def test_a_message_that_waits_is_dropped_unread_and_is_no_replay(world: World, queue: str) -> None:
    asked = await (world.accept() if queue == "requests" else world.routed())
    await world.cancel(asked)
    await assert_one_end(world, asked)
    message = world.broker.take(queue).message
    runner = FakeRunner()
    hop = world.route() if queue == "requests" else world.work(runner)
    assert await hop.handle(orjson.loads(message), "tag") is Disposition.ACK
    assert runner.tasks == []
    assert (await world.actions(asked))["message.replayed"] == 0
    # A second time it is one.
    assert await hop.handle(orjson.loads(message), "tag") is Disposition.ACK
    assert (await world.actions(asked))["message.replayed"] == 1


async def test_cancelling_in_hop_1_leaves_nothing_for_hop_2(world: World) -> None:
    asked = await world.accept()

    async def classify(_asked: object) -> Any:
        await world.cancel(asked)
        return build.intent()

    assert await world.deliver(world.route(classify), "requests") is Disposition.ACK
    await assert_one_end(world, asked)
    assert not world.broker.queues[RESPONDER]
    assert (await world.actions(asked))["attempt.discarded"] == 1


async def test_what_has_ended_or_never_was_cannot_be_cancelled(world: World) -> None:
    asked = await world.routed()
    await world.deliver(world.work(), RESPONDER)
    with pytest.raises(Conflict, match="succeeded"):
        await world.cancel(asked)
    await assert_one_end(world, asked, Status.SUCCEEDED)
    with pytest.raises(NotFound):
        await world.cancel(asked.model_copy(update={"id": "never"}))


async def test_the_audit_that_is_away_is_an_error_and_not_a_wait_without_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.desk.AUDIT_SECONDS", 0.05)
    asked = await world.routed()
    world.audit_store.free.clear()
    with pytest.raises(StoreError, match="ask again"):
        await world.cancel(asked)
    world.audit_store.free.set()
    assert (await world.cancel(asked)).status is Status.CANCELLED
    await assert_one_end(world, asked)


# Races --------------------------------------------------------------------------------------------


class Gate:
    """Holds up the first call of ``name`` of ``owner`` whose arguments fit, until it is opened."""

    def __init__(self, owner: Any, name: str, fits: Callable[..., bool] = lambda *_, **__: True) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        inner: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def held(*args: Any, **fields: Any) -> Any:
            if not self.reached.is_set() and fits(*args, **fields):
                self.reached.set()
                await self.open.wait()
            return await inner(*args, **fields)

        setattr(owner, name, held)


def gate_at(world: World, step: str) -> Gate:
    """Return what holds up whoever comes first to ``step`` of the tail."""
    if step == "audit":
        return Gate(world.audit_store, "create")
    if step == "clear":
        return Gate(world.register, "clear")
    prefix = {"session": "sessions/", "result": "results/"}[step]
    return Gate(world.data, "create", lambda key, _data: key.startswith(prefix))


@pytest.mark.parametrize("step", ["audit", "session", "result", "clear"])
@pytest.mark.parametrize("beats", [0, 1])
async def test_a_cancel_that_comes_while_an_attempt_is_at_its_tail(world: World, step: str, beats: int) -> None:
    """Whoever creates the result first wins; the other one finds that, and there is no second."""
    asked = await world.routed(session_id="s")
    hop = world.work()
    gate = gate_at(world, step)
    attempt = asyncio.create_task(world.deliver(hop, RESPONDER))
    await gate.reached.wait()
    if step == "clear":
        with pytest.raises(Conflict):
            await world.cancel(asked)
    else:
        assert (await world.cancel(asked)).status is Status.CANCELLED
    for _ in range(beats):
        await hop.deps.heartbeat.beat()
    gate.open.set()
    assert await asyncio.wait_for(attempt, 5) is Disposition.ACK
    await assert_one_end(world, asked, Status.SUCCEEDED if step == "clear" else Status.CANCELLED)
    assert (await world.actions(asked))["attempt.discarded"] == (step != "clear")


@pytest.mark.parametrize("step", ["audit", "result", "clear"])
async def test_an_attempt_that_ends_while_a_cancel_is_at_its_tail(world: World, step: str) -> None:
    asked = await world.routed()
    running = await Running(world).begin()
    gate = gate_at(world, step)
    cancelling = asyncio.create_task(world.cancel(asked))
    await gate.reached.wait()
    assert await running.end() is Disposition.ACK
    gate.open.set()
    if step == "clear":
        assert (await cancelling).status is Status.CANCELLED
        await assert_one_end(world, asked)
    else:
        with pytest.raises(Conflict, match="succeeded"):
            await cancelling
        await assert_one_end(world, asked, Status.SUCCEEDED)
    assert (await world.actions(asked))["attempt.discarded"] == 1


async def test_of_many_that_cancel_at_once_all_get_the_one_result(world: World) -> None:
    asked = await world.routed()
    found = await asyncio.gather(*(world.cancel(asked) for _ in range(10)))
    assert len({result.attempt for result in found}) == 1
    await assert_one_end(world, asked)


@pytest.mark.parametrize("step", TAIL)
@pytest.mark.parametrize("where", ["accepted", "routed", "running"])
async def test_the_process_that_cancels_dies(world: World, step: str, where: str) -> None:
    """The attempt, or the sweeper, ends what it began: as cancelled once the result was there."""
    asked = await (world.accept() if where == "accepted" else world.routed())
    running = await Running(world).begin() if where == "running" else None
    with pytest.raises(Died):
        await world.cancel(asked, Steps(step))
    if running:
        await running.beat()
        await running.end()
    await settle(world)
    began = step in {"begin", "audit"}
    await assert_one_end(world, asked, Status.SUCCEEDED if began else Status.CANCELLED)
    assert world.register.rows == {}


async def settle(world: World) -> None:
    """Deliver whatever waits, and let the sweeper mend, until the register is empty."""
    sweeper = world.sweeper()
    for _ in range(50):
        for queue, hop in (("requests", world.route()), (RESPONDER, world.work())):
            while world.broker.queues[queue]:
                await world.deliver(hop, queue)
        if not world.register.rows:
            return
        world.clock.advance(world.settings.leases.heartbeat_seconds)
        await sweeper.run_once()
    raise AssertionError(f"never settled: {world.register.rows}")


async def test_cancelling_again_ends_what_a_cancel_that_died_left(world: World) -> None:
    asked = await world.routed()
    running = await Running(world).begin()
    with pytest.raises(Died):
        await world.cancel(asked, Steps("result"))
    first = await world.result(asked)
    assert await world.cancel(asked) == first
    await running.beat()
    assert await asyncio.wait_for(running.task, 5) is Disposition.ACK
    assert running.runner.ended == ["CancelledError"]
    await assert_one_end(world, asked)


# What waited for it -------------------------------------------------------------------------------


async def test_the_sessions_next_turn_goes_on_and_remembers_nothing_of_the_cancelled_one(world: World) -> None:
    first, second = await world.routed("one", session_id="s"), await world.routed("two", session_id="s")
    running = await Running(world).begin()
    assert await world.deliver(world.work(), RESPONDER) is Disposition.ACK  # parked
    await world.cancel(first)
    assert len(world.broker.queues[RESPONDER]) == 1
    # The first one ends before its heartbeat tells it that nobody waits.
    await running.end()
    runner = FakeRunner()
    await world.deliver(world.work(runner), RESPONDER)
    assert [task.session_state for task in runner.tasks] == [None]
    await assert_one_end(world, first)
    await assert_one_end(world, second, Status.SUCCEEDED)
    latest = await world.sessions.latest("default", "s")
    assert latest is not None
    assert (latest.version, latest.turn) == (1, (second.id, 1))


async def test_a_turn_that_is_cancelled_while_it_is_parked_leaves_the_line(world: World) -> None:
    first, second, third = [await world.routed(name, session_id="s") for name in ("one", "two", "three")]
    running = await Running(world).begin()
    for _ in range(2):
        await world.deliver(world.work(), RESPONDER)
    await world.cancel(second)
    await running.end()
    await world.deliver(world.work(), RESPONDER)
    await assert_one_end(world, first, Status.SUCCEEDED)
    await assert_one_end(world, second)
    await assert_one_end(world, third, Status.SUCCEEDED)
    assert not world.broker.queues[RESPONDER]


async def test_its_slot_is_free_at_once(world: World) -> None:
    quotas = QuotaSettings(default=TenantQuota(max_running=1))
    world.settings = world.settings.changed(quotas=quotas)
    first, second = await world.accept("one"), await world.accept("two")
    assert len(world.broker.queues["requests"]) == 1
    await world.cancel(first)
    assert len(world.broker.queues["requests"]) == 2
    await settle(world)
    await assert_one_end(world, first)
    await assert_one_end(world, second, Status.SUCCEEDED)


async def test_what_waits_for_a_slot_is_cancelled_there(world: World) -> None:
    world.settings = world.settings.changed(quotas=QuotaSettings(default=TenantQuota(max_running=1)))
    first, second = await world.accept("one"), await world.accept("two")
    await world.cancel(second)
    await settle(world)
    await assert_one_end(world, first, Status.SUCCEEDED)
    await assert_one_end(world, second)
    assert (await world.register.load("default")) == {"open": 0, "admitted": 0, "throttled": 0}


# Plans --------------------------------------------------------------------------------------------


async def test_the_steps_of_a_plan_end_with_it(world: World) -> None:
    planned = Planned(world)
    asked = await planned.ask()
    await planned.deliver(PLANNER)
    await planned.deliver(EXECUTOR)  # b is done; a, c and d wait or run; e and f wait for others
    running = await Running(world).begin()  # a
    result = await world.cancel(asked)
    assert [(step.name, step.status) for step in result.steps] == [
        ("a", None),
        ("b", Status.SUCCEEDED),
        *((name, None) for name in "cdef"),
    ]
    assert world.register.rows == {}
    await running.beat()
    assert await asyncio.wait_for(running.task, 5) is Disposition.ACK
    assert running.runner.ended == ["CancelledError"]
    await planned.drain()
    assert planned.done_by_steps() == ["b"]
    assert planned.planner.concluded == []
    await assert_one_end(world, asked)
    assert [key for key in world.data.objects if key.startswith("steps/")] == [
        keys.step_result("default", asked.id, 1, "b")
    ]
    actions = await world.actions(asked)
    assert (actions["message.replayed"], actions["attempt.discarded"]) == (0, 1)
    assert await world.register.load("default") == {"open": 0, "admitted": 0, "throttled": 0}


async def test_a_step_that_ends_after_its_request_was_cancelled_wakes_nobody(world: World) -> None:
    planned = Planned(world)
    asked = await planned.ask()
    await planned.deliver(PLANNER)
    running = await Running(world).begin()
    await world.cancel(asked)
    await running.end()
    await planned.drain()
    assert planned.planner.concluded == []
    assert not any(world.broker.queues.values())
    await assert_one_end(world, asked)


@pytest.mark.parametrize("step", ["plan", "fan_out", "step"])
async def test_a_plan_is_cancelled_while_it_is_set_off(world: World, step: str) -> None:
    """Whatever was published by then is dropped; nothing is published after it."""
    planned = Planned(world)
    asked = await planned.ask()
    gate = {
        "plan": lambda: Gate(world.data, "create", lambda key, _data: key.startswith("plans/")),
        "fan_out": lambda: Gate(world.register, "fan_out"),
        "step": lambda: Gate(world.broker, "publish"),
    }[step]()
    planning = asyncio.create_task(planned.deliver(PLANNER))
    await gate.reached.wait()
    await world.cancel(asked)
    gate.open.set()
    assert await asyncio.wait_for(planning, 5) is Disposition.ACK
    await planned.drain()
    assert planned.done_by_steps() == []
    await assert_one_end(world, asked)
    assert world.register.rows == {}


@pytest.mark.parametrize("step", TAIL)
async def test_the_process_that_cancels_a_plan_dies(world: World, step: str) -> None:
    planned = Planned(world)
    asked = await planned.ask()
    await planned.deliver(PLANNER)
    await planned.deliver(RESPONDER)
    with pytest.raises(Died):
        await world.cancel(asked, Steps(step))
    await planned.settle()
    await planned.drain()
    began = step in {"begin", "audit"}
    await assert_one_end(world, asked, Status.SUCCEEDED if began else Status.CANCELLED)

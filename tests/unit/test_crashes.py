"""A process dies after each step of each hop; another one brings every request to exactly one end."""

import pytest

from tasks import keys
from tasks.access.gate import Caller
from tasks.agents.fake import FakeRunner
from tasks.attempt import Disposition
from tasks.audit.verify import verify
from tasks.contracts.base import sha256
from tasks.contracts.request import Request
from tasks.contracts.result import Status
from tasks.errors import ModelError, StoreError
from tests.support.world import HUMAN, RESPONDER, Died, Steps, World

TAIL = ["begin", "audit", "result", "notify", "clear"]
ROUTING = ["routed", "advance", "publish", "hand_over"]


async def assert_whole(world: World, asked: Request) -> None:
    """Exactly one result, which the audit names; chains hold; the register is empty and remembers."""
    stored = [key for key in world.data.objects if key.startswith("results/")]
    assert stored == [keys.result(asked.tenant, asked.id)]
    named = {record.details.get("sha256") for record in await world.records(asked)}
    assert sha256(world.data.objects[stored[0]]) in named
    assert {"request.accepted", "result.written"} <= set(await world.actions(asked))
    assert (await verify(world.audit_store, world.keys.ring)).ok
    assert world.register.rows == {}
    assert await world.register.counts() == {"leased": 0, "delayed": 0}
    same = await world.door().accept([asked], caller=Caller("alice"))
    assert [outcome.acceptance.value for outcome in same] == ["same"]


async def die(world: World, step: str, queue: str = RESPONDER, runner: FakeRunner | None = None) -> None:
    with pytest.raises(Died):
        await world.deliver(world.work(runner, pool=queue, passed=Steps(step)), queue)


async def test_the_tail_runs_in_its_order(world: World) -> None:
    asked = await world.routed(session_id="s")
    steps = Steps()
    await world.deliver(world.work(passed=steps), RESPONDER)
    assert steps.passed == ["begin", "audit", "session", "result", "notify", "clear"]
    await assert_whole(world, asked)


@pytest.mark.parametrize("step", ROUTING)
async def test_hop_1_dies(world: World, step: str) -> None:
    asked = await world.accept()
    with pytest.raises(Died):
        await world.deliver(world.route(passed=Steps(step)), "requests")
    if step == "routed":
        await world.sweep_until_published("requests")
        await world.deliver(world.route(), "requests")
    await world.sweep_until_published(RESPONDER)
    runner = FakeRunner()
    await world.deliver(world.work(runner), RESPONDER)
    assert len(runner.tasks) == 1
    await assert_whole(world, asked)


@pytest.mark.parametrize("step", TAIL)
async def test_hop_2_dies(world: World, step: str) -> None:
    asked = await world.routed()
    await die(world, step)
    if step == "clear":
        await assert_whole(world, asked)
        return
    await world.sweep_until_published(RESPONDER)
    runner = FakeRunner("second")
    assert await world.deliver(world.work(runner), RESPONDER) is Disposition.ACK
    assert len(runner.tasks) == (0 if step in {"result", "notify"} else 1)
    await assert_whole(world, asked)


@pytest.mark.parametrize("step", ["begin", "audit", "session", "result", "notify", "clear"])
async def test_hop_2_dies_in_a_session(world: World, step: str) -> None:
    asked = await world.routed(session_id="s")
    await die(world, step)
    if step != "clear":
        await world.sweep_until_published(RESPONDER)
        runner = FakeRunner("second")
        await world.deliver(world.work(runner), RESPONDER)
        assert len(runner.tasks) == (1 if step in {"begin", "audit"} else 0)
    versions = [key for key in world.data.objects if key.startswith("sessions/")]
    assert versions == [keys.session("default", "s", 1)]
    latest = await world.sessions.latest("default", "s")
    assert latest is not None
    assert latest.result == await world.result(asked)
    await assert_whole(world, asked)


@pytest.mark.parametrize("step", TAIL)
async def test_the_dead_letter_is_published_whatever_dies(world: World, step: str) -> None:
    """At least once, and always before the request is forgotten."""
    world.settings = world.settings.changed(queue=world.settings.queue.changed(attempts=1))
    asked = await world.accept(intent="talk_to_human")
    await world.deliver(world.route(), "requests")
    runner = FakeRunner(ModelError("away"))
    await die(world, step, HUMAN, runner)
    if step != "clear":
        await world.sweep_until_published(HUMAN)
        await world.deliver(world.work(runner, pool=HUMAN), HUMAN)
    letters = [parcel.ref for parcel in world.broker.queues[keys.DEAD_LETTERS]]
    assert set(letters) == {f"default/{asked.id}"}
    assert len(letters) == (2 if step == "notify" else 1)
    result = await world.result(asked)
    assert result is not None
    assert (result.status, result.error and result.error.code) == (Status.FAILED, "attempts_exhausted")
    assert "request.dead_lettered" in await world.actions(asked)
    await assert_whole(world, asked)


async def test_a_request_that_kills_every_worker_ends_as_a_dead_letter_and_kills_no_other_pool(world: World) -> None:
    asked = await world.routed()
    for _ in range(world.settings.queue.attempts):
        await die(world, "begin")
        await world.sweep_until_published(RESPONDER)
    runner = FakeRunner()
    await world.deliver(world.work(runner), RESPONDER)
    assert runner.tasks == []
    assert [parcel.ref for parcel in world.broker.queues[keys.DEAD_LETTERS]] == [f"default/{asked.id}"]
    assert not world.broker.queues[HUMAN]
    await assert_whole(world, asked)


async def test_an_attempt_that_comes_back_from_the_dead_writes_no_second_result(world: World) -> None:
    """The first attempt stalls before its tail, another one finishes, then the first goes on."""
    asked = await world.routed()
    second: list[str] = []

    class Slow(FakeRunner):
        async def run(self, task: object) -> object:  # type: ignore[override]
            answer = await super().run(task)  # type: ignore[arg-type]
            world.clock.advance(60)
            await world.sweep_until_published(RESPONDER)
            await world.deliver(world.work(FakeRunner("quick")), RESPONDER)
            second.append("done")
            return answer

    assert await world.deliver(world.work(Slow("slow")), RESPONDER) is Disposition.ACK
    assert second == ["done"]
    result = await world.result(asked)
    assert result is not None
    assert result.output == "quick"
    assert (await world.actions(asked))["attempt.discarded"] == 1
    await assert_whole(world, asked)


async def test_a_store_that_fails_in_the_tail_costs_one_attempt(world: World) -> None:
    asked = await world.routed()
    world.data.fail = StoreError("away")
    assert await world.deliver(world.work(), RESPONDER) is Disposition.ACK
    world.data.fail = None
    assert await world.result(asked) is None
    await world.sweep_until_published(RESPONDER)
    await world.deliver(world.work(), RESPONDER)
    assert (await world.actions(asked))["attempt.failed"] == 1
    await assert_whole(world, asked)

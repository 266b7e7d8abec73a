"""``sluice trace`` shows what is so: of requests with and without steps, open and ended."""

import orjson
import pytest
from rich.console import Console

from handlers.cli.trace import drawn
from handlers.trace import Trace, Tracer
from tasks.agents.fake import FakeRunner
from tasks.contracts.request import Request
from tasks.errors import ModelRefused, NotFound
from tests.support.planned import EXECUTOR, PLANNER, Planned
from tests.support.world import RESPONDER, World


@pytest.fixture
def planned(world: World) -> Planned:
    return Planned(world)


async def trace(world: World, asked: Request, revision: int | None = None) -> Trace:
    tracer = Tracer(world.register, world.results, world.plans, lambda text: text)
    return await tracer.trace(asked.tenant, asked.id, revision)


def shown(found: Trace) -> str:
    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(drawn(found))
    return captured.get()


async def test_steps_that_run_wait_or_have_not_begun(planned: Planned, world: World) -> None:
    asked = await planned.ask()
    await planned.deliver(PLANNER)
    seen: list[Trace] = []

    class Looking(FakeRunner):
        async def run(self, task: object) -> object:  # type: ignore[override]
            seen.append(await trace(world, asked))
            return await super().run(task)  # type: ignore[arg-type]

    await planned.drain([RESPONDER])
    await world.deliver(world.work(Looking(), pool=EXECUTOR), EXECUTOR)
    [found] = seen
    assert (found.state, found.agent_type, found.finished_at) == ("parked", "planner", None)
    assert {step.name: step.state for step in found.steps} == {
        "a": "succeeded",
        "b": "running",
        "c": "succeeded",
        "d": "waiting",
        "e": "parked",
        "f": "parked",
    }
    text = shown(found)
    assert "├── b  running  executor" in text
    assert "e  parked  responder  after a, b" in text


async def test_a_request_that_has_ended(planned: Planned, world: World) -> None:
    asked = await planned.ask()
    await planned.drain()
    found = await trace(world, asked)
    assert (found.state, found.planned_by, found.calls) == ("succeeded", "fake", ())
    assert {step.state for step in found.steps} == {"succeeded"}
    assert all(step.started_at and step.finished_at for step in found.steps)
    assert orjson.loads(orjson.dumps(found.to_dict()))["steps"][4]["depends_on"] == ["a", "b"]
    assert shown(found).startswith(f"{asked.id}  succeeded  plan_task 0.90  planner")


async def test_a_step_that_failed_says_why(planned: Planned, world: World) -> None:
    planned.runner = FakeRunner(ModelRefused("the [bold]endpoint[/] says no"))
    asked = await planned.ask()
    await planned.drain()
    text = shown(await trace(world, asked))
    assert "b  failed  executor" in text
    assert "model_refused: the [bold]endpoint[/] says no" in text
    assert "e  not begun  responder  after a, b" in text


async def test_a_request_without_steps(world: World) -> None:
    asked = await world.routed()
    found = await trace(world, asked)
    assert (found.state, found.queue, found.steps) == ("waiting", RESPONDER, ())
    await world.deliver(world.work(), RESPONDER)
    found = await trace(world, asked)
    assert (found.state, found.queue, found.steps) == ("succeeded", None, ())
    assert "succeeded" in shown(found)


async def test_a_request_that_nobody_knows(world: World) -> None:
    with pytest.raises(NotFound, match="no request 'nobody' of tenant 'default'"):
        await Tracer(world.register, world.results, world.plans, lambda text: text).trace("default", "nobody")


async def test_the_newest_revision_is_shown(world: World) -> None:
    asked = await world.routed()
    await world.deliver(world.work(), RESPONDER)
    first = await world.result(asked)
    assert first is not None
    await world.results.create(first.changed(revision=2, attempt="later"))
    assert (await trace(world, asked)).revision == 2
    assert (await trace(world, asked, 1)).revision == 1

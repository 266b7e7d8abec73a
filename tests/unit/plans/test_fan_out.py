"""A planned request: its steps run when they can, and come back together in one result."""

import asyncio
import itertools
from datetime import timedelta

import pytest

from tasks import keys
from tasks.agents.fake import FakePlanner, FakeRunner
from tasks.agents.types import AgentAnswer, AgentTask
from tasks.contracts.result import Status, Usage
from tasks.errors import LimitExceeded, ModelRefused
from tests.support import build
from tests.support.planned import EXECUTOR, PLANNER, SIX, Planned, draft, echo, step
from tests.support.world import HUMAN, RESPONDER, World


@pytest.fixture
def planned(world: World) -> Planned:
    return Planned(world)


def of(world: World, *steps: dict[str, object], planner: FakePlanner | None = None) -> Planned:
    return Planned(world, *steps, planner=planner)


async def test_independent_steps_go_out_at_once_and_dependent_ones_when_what_they_need_is_there(
    planned: Planned, world: World
) -> None:
    await planned.ask()
    await planned.deliver(PLANNER)
    assert [len(world.broker.queues[pool]) for pool in (RESPONDER, EXECUTOR)] == [2, 2]
    await planned.drain([RESPONDER])
    assert planned.done_by_steps() == ["a", "c"]
    await planned.drain([EXECUTOR])
    assert planned.done_by_steps() == ["a", "c", "b", "d"]
    await planned.drain([RESPONDER])
    assert planned.done_by_steps()[-2:] == ["e", "f"]
    assert len(world.broker.queues[PLANNER]) == 1


async def test_steps_go_to_shards_are_done_there_and_joined(world: World) -> None:
    eu, us = f"{RESPONDER}@eu", f"{RESPONDER}@us"
    turns = itertools.cycle((eu, us))
    world.place = lambda agent_type: next(turns) if agent_type == "responder" else keys.agent_pool(agent_type)
    planned = of(world, step("a"), step("b"), step("c", "responder", "a", "b"))
    asked = await planned.ask()
    await planned.deliver(PLANNER)
    assert [len(world.broker.queues[pool]) for pool in (RESPONDER, eu, us)] == [0, 1, 1]
    await planned.drain([us])
    assert planned.done_by_steps() == ["b"]
    await planned.drain([eu])
    assert planned.done_by_steps() == ["b", "a", "c"], "what waited was placed when the plan was made"
    await planned.drain()
    result = await planned.result(asked)
    assert (result.status, [node.status for node in result.steps]) == (Status.SUCCEEDED, [Status.SUCCEEDED] * 3)
    assert not world.register.rows


async def test_the_planner_holds_no_lease_and_no_message_while_steps_run(planned: Planned, world: World) -> None:
    asked = await planned.ask()
    await planned.deliver(PLANNER)
    row = await world.register.get(keys.ref("default", asked.id))
    assert row is not None
    assert (row.state, row.holder) == ("parked", "")
    assert not world.broker.queues[PLANNER]


async def test_a_step_is_given_its_instruction_and_the_outputs_that_it_needs(planned: Planned, world: World) -> None:
    await planned.ask()
    await planned.drain()
    texts = {task.step: task.text for task in planned.runner.tasks}
    assert texts["a"] == "do a"
    assert texts["e"] == "do e\n\nWhat earlier steps found:\n[a]\n<a: do a>\n\n[b]\n<b: do b>"
    assert texts["f"].startswith("do f\n\nWhat earlier steps found:\n[e]\n")


async def test_the_result_holds_the_tree_of_steps_and_the_sum_of_what_they_used(planned: Planned, world: World) -> None:
    def answer(task: AgentTask) -> AgentAnswer:
        return AgentAnswer(output=echo(task), model="m", usage=Usage(input_tokens=3, output_tokens=2, tool_calls=1))

    planned.runner = FakeRunner(answer)
    asked = await planned.ask()
    await planned.drain()
    result = await planned.result(asked)
    assert result.status is Status.SUCCEEDED
    assert [(node.name, node.status, node.depends_on) for node in result.steps] == [
        (made["id"], Status.SUCCEEDED, tuple(made["depends_on"])) for made in SIX
    ]
    assert {node.agent.type for node in result.steps if node.agent} == {"responder", "executor"}
    assert all(node.started_at and node.finished_at and node.milliseconds is not None for node in result.steps)
    # Six steps of 3 and 2, and the plan itself with 10 and 5.
    assert result.usage == Usage(input_tokens=28, output_tokens=17, tool_calls=6)
    assert "<f: " in result.output


async def test_what_a_plan_used_is_counted_once_and_as_one_request(planned: Planned, world: World) -> None:
    def answer(task: AgentTask) -> AgentAnswer:
        return AgentAnswer(output="x", model="m", usage=Usage(input_tokens=3))

    planned.runner = FakeRunner(answer)
    await planned.ask()
    await planned.drain()
    used = await world.register.usage("default", f"{build.EPOCH:%Y-%m-%d}")
    assert (used["requests"], used["input_tokens"], used["output_tokens"]) == (1, 28, 5)


async def test_it_leaves_nothing_in_the_register_and_a_whole_record(planned: Planned, world: World) -> None:
    asked = await planned.ask()
    await planned.drain()
    assert world.register.rows == {}
    assert await world.register.counts() == {"leased": 0, "delayed": 0}
    actions = await world.actions(asked)
    assert (actions["plan.created"], actions["step.finished"], actions["result.written"]) == (1, 6, 1)
    steps = [record for record in await world.records(asked) if record.action == "step.finished"]
    assert {record.details["step"] for record in steps} == set("abcdef")
    assert {record.resource for record in steps} == {
        keys.step_result("default", asked.id, 1, step_id) for step_id in "abcdef"
    }


async def test_the_plan_is_asked_for_once_and_read_afterwards(planned: Planned, world: World) -> None:
    await planned.ask()
    await planned.drain()
    assert len(planned.planner.asked) == 1
    assert len(planned.planner.concluded) == 1


async def test_the_model_is_told_of_the_agents_that_do_steps(planned: Planned) -> None:
    await planned.ask()
    await planned.deliver(PLANNER)
    told = planned.planner.asked[0].agent.instructions
    assert "- executor (tools: sql_parser, api_caller" in told
    assert "- responder" in told
    assert "- planner" not in told
    assert "- human_escalation" not in told


async def test_a_malformed_plan_is_tried_again_with_its_fault_and_then_answered_directly(world: World) -> None:
    planned = of(world, planner=FakePlanner("I think we should start with step one."))
    asked = await planned.ask()
    await planned.drain()
    assert len(planned.planner.asked) == 2
    assert 'It is wrong: no JSON of the form {"steps": [...]}' in planned.planner.asked[1].text
    result = await planned.result(asked)
    assert (result.output, result.steps) == ("<whole: Do it all>", ())
    assert result.usage.input_tokens == 20
    # The answer is asked for with what the two drafts took: they count against the same limits.
    assert [task.spent.turns for task in (*planned.planner.asked, *planned.runner.tasks)] == [0, 1, 2]
    assert planned.runner.tasks[0].spent.usage.input_tokens == 20
    [refused] = [record for record in await world.records(asked) if record.action == "plan.refused"]
    assert "no JSON" in refused.reason
    assert await planned.plan(asked) is None


async def test_the_second_draft_counts(world: World) -> None:
    planned = of(world, planner=FakePlanner(draft(step("a", "nobody")), draft(step("a"))))
    asked = await planned.ask()
    await planned.drain()
    assert (
        "step a: agent: 'nobody' does no steps here; name one of executor, responder" in planned.planner.asked[1].text
    )
    result = await planned.result(asked)
    assert [node.name for node in result.steps] == ["a"]
    assert result.usage.input_tokens == 20


async def test_limits_that_the_drafts_use_up_are_said_and_the_fallback_takes_over(world: World) -> None:
    used_up = LimitExceeded("agent planner exceeds max_turns=1: no answer after 1 calls of a model")
    planned = of(world, planner=FakePlanner("no plan", used_up))
    asked = await planned.ask()
    await planned.drain()
    assert (await planned.result(asked)).agent.type == "human_escalation"  # type: ignore[union-attr]
    [fallen] = [record for record in await world.records(asked) if record.action == "agent.fallback"]
    assert fallen.reason == f"limit_exceeded: {used_up}"


async def test_a_model_that_sees_no_steps_answers_by_itself(world: World) -> None:
    planned = of(world, planner=FakePlanner(draft()))
    asked = await planned.ask()
    await planned.drain()
    assert (await planned.result(asked)).output == "<whole: Do it all>"
    assert len(planned.planner.asked) == 1


async def test_without_a_model_the_numbers_in_the_text_are_the_plan(world: World) -> None:
    planned = of(world, planner=FakePlanner(can_write=False))
    asked = await planned.ask("Do this: 1. Run SELECT 1 FROM customers 2. Name the capital of Peru. 3. Then sum up.")
    await planned.drain()
    plan = await planned.plan(asked)
    assert plan is not None
    assert [(made.agent, made.depends_on) for made in plan.steps] == [
        ("executor", ()),
        ("responder", ()),
        ("responder", ("s2",)),
    ]
    result = await planned.result(asked)
    assert result.output.startswith("1. Run SELECT 1 FROM customers\n<s1: ")


async def test_a_text_without_numbers_is_answered_directly(world: World) -> None:
    planned = of(world, planner=FakePlanner())
    asked = await planned.ask("Plan my week")
    await planned.drain()
    assert (await planned.result(asked)).output == "<whole: Plan my week>"
    assert (await world.actions(asked))["plan.refused"] == 0


async def test_too_many_numbers_are_answered_directly_and_on_record(world: World) -> None:
    planned = of(world, planner=FakePlanner())
    asked = await planned.ask(" ".join(f"{number}. Do thing {number}." for number in range(1, 12)))
    await planned.drain()
    assert (await planned.result(asked)).steps == ()
    [refused] = [record for record in await world.records(asked) if record.action == "plan.refused"]
    assert refused.reason == "steps: 11, the limit is 8"


async def test_a_session_remembers_the_turn(planned: Planned, world: World) -> None:
    asked = await planned.ask(session_id="s")
    await planned.drain()
    latest = await world.sessions.latest("default", "s")
    assert latest is not None
    assert latest.result == await planned.result(asked)
    assert latest.state == {"turns": 1}


async def test_the_next_turn_of_a_session_waits_for_the_steps_of_this_one(planned: Planned, world: World) -> None:
    await planned.ask(session_id="s")
    second = await planned.ask("And then?", session_id="s")
    await planned.deliver(PLANNER)
    await planned.deliver(PLANNER)
    row = await world.register.get(keys.ref("default", second.id))
    assert row is not None
    assert row.parked
    await planned.drain()
    assert (await planned.result(second)).status is Status.SUCCEEDED


# Failure ------------------------------------------------------------------------------------------


def refusing(*names: str) -> object:
    def reply(task: AgentTask) -> str:
        if task.step in names:
            raise ModelRefused(f"no {task.step}")
        return echo(task)

    return reply


async def test_where_a_step_fails_the_request_fails_and_the_rest_is_left(planned: Planned, world: World) -> None:
    planned.runner = FakeRunner(refusing("a"))  # type: ignore[arg-type]
    asked = await planned.ask()
    await planned.drain()
    result = await planned.result(asked)
    assert (result.status, result.error and result.error.code) == (Status.FAILED, "step_failed")
    assert result.error is not None
    assert result.error.message == "step a: model_refused: no a"
    states = {node.name: node.status for node in result.steps}
    assert (states["a"], states["e"], states["f"]) == (Status.FAILED, None, None)
    assert world.register.rows == {}
    assert not world.broker.queues[keys.DEAD_LETTERS]
    assert "e" not in planned.done_by_steps()


async def test_a_step_that_may_be_skipped_is_and_the_others_are_told(world: World) -> None:
    planned = of(world, step("a", on_failure="skip"), step("b", "responder", "a"))
    planned.runner = FakeRunner(refusing("a"))  # type: ignore[arg-type]
    asked = await planned.ask()
    await planned.drain()
    result = await planned.result(asked)
    assert result.status is Status.SUCCEEDED
    assert [node.ok for node in result.steps] == [False, True]
    assert "(no answer: no a)" in planned.runner.tasks[-1].text


async def test_the_fallback_of_the_steps_agent_type_does_it(world: World) -> None:
    agents = [
        agent.changed(fallback="responder") if agent.type == "executor" else agent for agent in world.settings.agents
    ]
    world.settings = world.settings.changed(agents=tuple(agents))
    planned = of(world, step("a", "executor", on_failure="fall_back"))

    def reply(task: AgentTask) -> str:
        if task.agent.type == "executor":
            raise ModelRefused("no")
        return echo(task)

    planned.runner = FakeRunner(reply)
    asked = await planned.ask()
    await planned.drain()
    result = await planned.result(asked)
    assert (result.status, result.steps[0].agent and result.steps[0].agent.type) == (Status.SUCCEEDED, "responder")


async def test_without_such_a_fallback_the_request_goes_to_the_planners(world: World) -> None:
    planned = of(world, step("a", "executor", on_failure="fall_back"), step("b"))
    planned.runner = FakeRunner(refusing("a"))  # type: ignore[arg-type]
    asked = await planned.ask()
    await planned.drain()
    result = await planned.result(asked)
    assert (result.status, result.agent and result.agent.type) == (Status.ESCALATED, "human_escalation")
    assert [(node.name, node.ok) for node in result.steps] == [("a", False), ("b", True)]
    assert (await world.actions(asked))["agent.fallback"] == 1


async def test_a_step_that_is_escalated_has_failed(world: World) -> None:
    planned = of(world, step("a"))
    planned.runner = FakeRunner(AgentAnswer(output="a brief", model="m", escalated=True))
    asked = await planned.ask()
    await planned.drain()
    result = await planned.result(asked)
    assert (result.status, result.steps[0].status) == (Status.FAILED, Status.ESCALATED)
    assert result.error is not None
    assert result.error.message == "step a: it was escalated"


async def test_a_step_that_uses_up_its_attempts_makes_a_dead_letter_of_the_request_not_of_itself(world: World) -> None:
    world.settings = world.settings.changed(queue=world.settings.queue.changed(attempts=1))
    planned = of(world, step("a"))
    planned.runner = FakeRunner(RuntimeError("boom"))
    asked = await planned.ask()
    await planned.drain()
    result = await planned.result(asked)
    assert (result.status, result.error and result.error.code) == (Status.FAILED, "attempts_exhausted")
    assert [parcel.ref for parcel in world.broker.queues[keys.DEAD_LETTERS]] == [keys.ref("default", asked.id)]
    assert (await world.actions(asked))["request.dead_lettered"] == 1


async def test_what_may_be_skipped_makes_no_dead_letter(world: World) -> None:
    world.settings = world.settings.changed(queue=world.settings.queue.changed(attempts=1))
    planned = of(world, step("a", on_failure="skip"))
    planned.runner = FakeRunner(RuntimeError("boom"))
    asked = await planned.ask()
    await planned.drain()
    assert (await planned.result(asked)).status is Status.SUCCEEDED
    assert not world.broker.queues[keys.DEAD_LETTERS]


async def test_the_deadline_ends_the_request_and_its_steps(planned: Planned, world: World) -> None:
    asked = await planned.ask(deadline=build.EPOCH + timedelta(seconds=60))
    await planned.deliver(PLANNER)
    await planned.deliver(RESPONDER)
    world.clock.advance(61)
    await planned.settle()
    result = await planned.result(asked)
    assert result.status is Status.EXPIRED
    assert [node.status for node in result.steps].count(Status.SUCCEEDED) == 1
    assert planned.done_by_steps() == ["a"]


async def test_a_step_of_a_request_that_has_ended_ends(planned: Planned, world: World) -> None:
    asked = await planned.ask()
    await planned.deliver(PLANNER)
    ended = build.result(asked, status=Status.CANCELLED)
    await world.results.create(ended)
    await planned.drain()
    assert planned.done_by_steps() == []
    found = await planned.step(asked, "b")
    assert found is not None
    assert (found.status, found.error and found.error.code) == (Status.CANCELLED, "ended")
    assert world.register.rows == {}  # the planner, woken by that, has closed the rest


async def test_a_step_that_runs_when_its_request_ends_is_stopped(planned: Planned, world: World) -> None:
    asked = await planned.ask()
    await planned.deliver(PLANNER)
    stopped: list[str] = []

    class Slow(FakeRunner):
        async def run(self, task: AgentTask) -> AgentAnswer:
            ended = build.result(asked)
            await world.results.create(ended)
            await hop.deps.finisher.close(build.message(asked), ended)
            await hop.deps.heartbeat.beat()
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                stopped.append(task.step)
                raise
            return await super().run(task)

    hop = world.work(Slow(), pool=RESPONDER)
    await world.deliver(hop, RESPONDER)
    assert stopped == ["a"]
    assert await planned.step(asked, "a") is None
    [record] = [record for record in await world.records(asked) if record.action == "attempt.discarded"]
    assert (record.details["step"], record.reason) == ("a", "request_ended")
    await planned.drain()
    assert world.register.rows == {}
    assert (await world.actions(asked))["message.replayed"] == 0


# What the sweeper mends ---------------------------------------------------------------------------


async def test_steps_that_the_register_lost_are_opened_again_when_the_planner_looks(
    planned: Planned, world: World
) -> None:
    asked = await planned.ask()
    await planned.deliver(PLANNER)
    for queue in (RESPONDER, EXECUTOR):
        world.broker.queues[queue].clear()
    for ref in [ref for ref in world.register.rows if "#" in ref]:
        del world.register.rows[ref]
    await planned.settle()
    assert (await planned.result(asked)).status is Status.SUCCEEDED
    assert sorted(planned.done_by_steps()) == list("abcdef")


async def test_a_planner_that_fails_is_tried_again_and_then_falls_back(world: World) -> None:
    planned = of(world, planner=FakePlanner(ModelRefused("no")))
    asked = await planned.ask()
    await planned.drain()
    result = await planned.result(asked)
    assert (result.status, result.steps) == (Status.ESCALATED, ())
    assert not world.broker.queues[HUMAN]

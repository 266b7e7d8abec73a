"""Hop 2: answers, fallbacks, deadlines, sessions."""

import asyncio
from datetime import timedelta

import orjson

from tasks import keys
from tasks.agents.fake import FakeRunner
from tasks.agents.types import AgentAnswer, AgentTask, ToolCall
from tasks.attempt import Disposition
from tasks.contracts.base import parse_versioned, sha256
from tasks.contracts.message import Message
from tasks.contracts.request import Request
from tasks.contracts.result import Result, Status, Step, Usage
from tasks.contracts.session import SessionVersion
from tasks.errors import ModelError, ModelRefused
from tasks.settings import AgentSettings, Settings
from tasks.work import MAX_ARGUMENTS
from tests.support import build
from tests.support.world import HUMAN, RESPONDER, World


async def result_of(world: World, asked: Request) -> Result:
    result = await world.result(asked)
    assert result is not None
    return result


async def test_an_answer_becomes_the_result(world: World) -> None:
    asked = await world.routed("hello", id="r1", tenant="acme")
    world.clock.advance(2)
    steps = (Step(name="think"),)
    answer = AgentAnswer(output="hi", model="m", usage=Usage(input_tokens=3), steps=steps)
    runner = FakeRunner(answer)
    assert await world.deliver(world.work(runner), RESPONDER) is Disposition.ACK
    result = await result_of(world, asked)
    assert (result.status, result.output, result.usage.input_tokens, result.steps) == (
        Status.SUCCEEDED,
        "hi",
        3,
        steps,
    )
    assert result.agent is not None
    assert (result.agent.type, result.agent.model) == ("responder", "m")
    assert (result.intent, result.request_digest) == (build.intent(), asked.digest())
    assert result.timings.latency_seconds == 2
    [task] = runner.tasks
    assert (task.text, task.tenant, task.request_id, task.agent.type) == ("hello", "acme", "r1", "responder")
    assert await world.actions(asked) == {
        "request.accepted": 1,
        "intent.routed": 1,
        "agent.started": 1,
        "result.written": 1,
    }
    written = (await world.records(asked))[-1]
    assert written.details["sha256"] == sha256(world.data.objects["results/acme/r1.json"])


async def test_tool_calls_are_audited_with_their_arguments_redacted_and_cut(world: World) -> None:
    asked = await world.routed()
    secret, padding = "sk-proj-4f9ac0d1e2b34455aa77", "x" * (MAX_ARGUMENTS - 22)

    def calls(task: AgentTask) -> str:
        assert task.on_tool
        task.on_tool(ToolCall("sql_parser", {"sql": "select 1"}, False, "denied", 1.5, code="tool_refused"))
        task.on_tool(ToolCall("pay", {"a": padding, "b": secret}, True, "", 1.5, replayed=True))
        return "done"

    await world.deliver(world.work(FakeRunner(calls)), RESPONDER)
    refused, made = [record for record in await world.records(asked) if record.action == "tool.called"]
    assert (refused.resource, refused.reason, refused.details["ok"]) == ("tool:sql_parser", "denied", False)
    assert (refused.decision, refused.details["code"]) == ("deny", "tool_refused")
    assert refused.details["arguments"] == '{"sql":"select 1"}'
    assert refused.details["arguments_sha256"] == sha256(b'{"sql":"select 1"}')
    assert (made.decision, made.details["replayed"]) == ("allow", True)
    assert len(str(made.details["arguments"])) == MAX_ARGUMENTS
    # The cut goes through the secret: what is left of it must not be there either.
    assert b"sk-pr" not in made.to_bytes()


async def test_secrets_in_steps_do_not_reach_the_result(world: World) -> None:
    asked = await world.routed()
    answer = AgentAnswer(output="hi", model="m", steps=(Step(name="call", detail="password=hunter2"),))
    await world.deliver(world.work(FakeRunner(answer)), RESPONDER)
    assert "hunter2" not in (await result_of(world, asked)).steps[0].detail


async def test_an_override_of_the_model_is_used_and_audited(world: World) -> None:
    asked = await world.routed(model="m2")
    runner = FakeRunner()
    await world.deliver(world.work(runner), RESPONDER)
    assert runner.tasks[0].model == "m2"
    assert (await world.actions(asked))["model.override"] == 1


async def test_a_question_for_a_person_is_escalated(world: World) -> None:
    asked = await world.accept(intent="talk_to_human")
    await world.deliver(world.route(), "requests")
    await world.deliver(world.work(pool=HUMAN), HUMAN)
    assert (await result_of(world, asked)).status is Status.ESCALATED
    assert (await world.actions(asked))["escalation.opened"] == 1


async def test_a_model_that_fails_is_asked_again_after_a_pause(world: World) -> None:
    asked = await world.routed()
    runner = FakeRunner("done", script=[ModelError("busy"), ValueError("bug")])
    for pause in (2, 4):
        await world.deliver(world.work(runner), RESPONDER)
        row = await world.register.get(f"default/{asked.id}")
        assert row is not None
        assert (row.state, row.due - world.clock.seconds) == ("delayed", pause)
        await world.sweep_until_published(RESPONDER)
    await world.deliver(world.work(runner), RESPONDER)
    assert (await result_of(world, asked)).output == "done"
    failed = [record.reason for record in await world.records(asked) if record.action == "attempt.failed"]
    assert failed == ["model: busy", "internal: bug"]


async def test_a_refusal_goes_to_the_fallback_at_once_and_from_there_to_a_person(world: World) -> None:
    asked = await world.routed()
    await world.deliver(world.work(FakeRunner(ModelRefused("no"))), RESPONDER)
    [parcel] = world.broker.queues[HUMAN]
    message = parse_versioned(Message, orjson.loads(parcel.message))
    assert (message.agent_type, message.fallback_from, message.fallback_code) == (
        "human_escalation",
        "responder",
        "model_refused",
    )
    await world.deliver(world.work(FakeRunner(ModelRefused("no")), pool=HUMAN), HUMAN)
    result = await result_of(world, asked)
    assert (result.status, result.error and result.error.code) == (Status.ESCALATED, "model_refused")
    actions = await world.actions(asked)
    assert (actions["agent.fallback"], actions["attempt.failed"], actions["escalation.opened"]) == (1, 2, 1)
    assert not world.broker.queues[keys.DEAD_LETTERS]


async def test_a_fallback_with_a_fallback_of_its_own_does_not_use_it(world: World) -> None:
    agents = (
        AgentSettings(type="responder", fallback="planner"),
        AgentSettings(type="planner", fallback="executor"),
    )
    world.settings = Settings(agents=agents)
    asked = await world.routed()
    await world.deliver(world.work(FakeRunner(ModelRefused("no"))), RESPONDER)
    await world.deliver(world.work(FakeRunner(ModelRefused("no")), pool="agents.planner"), "agents.planner")
    assert (await result_of(world, asked)).status is Status.FAILED


async def test_attempts_that_all_fail_go_to_the_fallback_which_has_its_own(world: World) -> None:
    asked = await world.routed()
    attempts = world.settings.queue.attempts
    runner = FakeRunner(ModelError("busy"))
    for pool in (RESPONDER, HUMAN):
        for number in range(attempts):
            await world.deliver(world.work(runner, pool=pool), pool)
            if number < attempts - 1:
                await world.sweep_until_published(pool)
    assert len(runner.tasks) == 2 * attempts
    result = await result_of(world, asked)
    assert (result.status, result.error and result.error.code) == (Status.FAILED, "attempts_exhausted")
    assert result.error
    assert "model: busy" in result.error.message
    [letter] = world.broker.queues[keys.DEAD_LETTERS]
    assert letter.ref == f"default/{asked.id}"


async def test_a_deadline_ends_an_attempt_and_then_the_request(world: World) -> None:
    asked = await world.routed(deadline=build.EPOCH + timedelta(seconds=0.02))
    cancelled: list[bool] = []

    class Stuck(FakeRunner):
        async def run(self, task: AgentTask) -> AgentAnswer:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            raise AssertionError

    await world.deliver(world.work(Stuck()), RESPONDER)
    assert cancelled == [True]
    world.clock.advance(5)
    await world.sweeper().run_once()
    result = await result_of(world, asked)
    assert (result.status, result.error and result.error.code) == (Status.EXPIRED, "expired")


async def test_an_attempt_that_is_stopped_gives_its_request_back(world: World) -> None:
    asked = await world.routed()
    running = asyncio.Event()

    class Stuck(FakeRunner):
        async def run(self, task: AgentTask) -> AgentAnswer:
            running.set()
            await asyncio.Event().wait()
            raise AssertionError

    task = asyncio.create_task(world.deliver(world.work(Stuck()), RESPONDER))
    await running.wait()
    task.cancel()
    assert await task is Disposition.ACK
    row = await world.register.get(f"default/{asked.id}")
    assert row is not None
    assert (row.attempts, row.holder) == (0, "")
    await world.deliver(world.work(), RESPONDER)
    assert (await result_of(world, asked)).status is Status.SUCCEEDED


async def test_a_request_that_is_given_back_after_its_result_was_written_is_not_worked_on_again(world: World) -> None:
    asked = await world.routed()

    def stopped_at_result(step: str) -> None:
        if step == "result":
            raise asyncio.CancelledError

    first = world.work(FakeRunner("first"), passed=stopped_at_result)
    assert await world.deliver(first, RESPONDER) is Disposition.ACK
    assert (await result_of(world, asked)).output == "first"
    assert await world.register.get(f"default/{asked.id}") is None
    assert not world.broker.queues[RESPONDER]


async def test_a_message_without_an_agent_type_does_not_run(world: World) -> None:
    asked = build.request()
    runner = FakeRunner()
    await world.work(runner).handle(orjson.loads(build.message(asked).to_json()), "tag")
    assert runner.tasks == []
    assert await world.result(asked) is None


# Sessions -----------------------------------------------------------------------------------------------


async def test_a_session_carries_its_state_from_turn_to_turn(world: World) -> None:
    runner = FakeRunner()
    for _ in range(3):
        await world.routed(session_id="s")
        await world.deliver(world.work(runner), RESPONDER)
    assert [task.session_state for task in runner.tasks] == [None, {"turns": 1}, {"turns": 2}]
    assert sorted(key for key in world.data.objects if key.startswith("sessions/")) == [
        keys.session("default", "s", version) for version in (1, 2, 3)
    ]


async def test_turns_run_in_the_order_in_which_they_were_accepted(world: World) -> None:
    first = await world.routed("first", session_id="s")
    second = await world.routed("second", session_id="s")
    world.broker.queues[RESPONDER].reverse()
    runner = FakeRunner()
    await world.deliver(world.work(runner), RESPONDER)
    assert runner.tasks == []
    row = await world.register.get(f"default/{second.id}")
    assert row is not None
    assert row.state == "parked"
    await world.deliver(world.work(runner), RESPONDER)
    assert [parcel.ref for parcel in world.broker.queues[RESPONDER]] == [f"default/{second.id}"]
    await world.deliver(world.work(runner), RESPONDER)
    assert [task.text for task in runner.tasks] == ["first", "second"]
    assert (await result_of(world, first)).session_id == "s"
    assert (await result_of(world, second)).timings.finished_at >= (await result_of(world, first)).timings.finished_at


async def test_a_turn_that_was_parked_behind_a_failing_one_is_released(world: World) -> None:
    await world.accept("first", session_id="s", intent="talk_to_human")
    await world.accept("second", session_id="s", intent="talk_to_human")
    for _ in range(2):
        await world.deliver(world.route(), "requests")
    world.broker.queues[HUMAN].reverse()
    await world.deliver(world.work(pool=HUMAN), HUMAN)
    await world.deliver(world.work(FakeRunner(ModelRefused("no")), pool=HUMAN), HUMAN)
    runner = FakeRunner()
    await world.deliver(world.work(runner, pool=HUMAN), HUMAN)
    assert [task.text for task in runner.tasks] == ["second"]


async def test_a_saved_turn_is_not_taken_twice(world: World) -> None:
    """What crashed between the session and the result finds its answer beside the state."""
    asked = await world.routed(session_id="s")
    saved = build.result(asked, output="saved before", attempt="a0")

    version = SessionVersion(
        tenant="default", session_id="s", version=1, saved_at=build.EPOCH, state={"turns": 1}, result=saved
    )
    await world.sessions.create(version)
    runner = FakeRunner("again")
    await world.deliver(world.work(runner), RESPONDER)
    assert runner.tasks == []
    assert await result_of(world, asked) == saved


async def test_a_version_that_another_request_took_discards_the_attempt(world: World) -> None:
    asked = await world.routed(session_id="s")

    class Overtaken(FakeRunner):
        async def run(self, task: AgentTask) -> AgentAnswer:
            other = build.result(session_id="s")
            await world.sessions.create(
                SessionVersion(
                    tenant="default", session_id="s", version=1, saved_at=build.EPOCH, state={}, result=other
                )
            )
            return await super().run(task)

    assert await world.deliver(world.work(Overtaken()), RESPONDER) is Disposition.ACK
    assert await world.result(asked) is None
    assert (await world.actions(asked))["attempt.discarded"] == 1
    await world.sweep_until_published(RESPONDER)
    await world.deliver(world.work(), RESPONDER)
    assert (await result_of(world, asked)).status is Status.SUCCEEDED
    assert keys.session("default", "s", 2) in world.data.objects


async def test_two_attempts_at_the_same_turn_end_with_the_one_that_the_session_holds(world: World) -> None:
    asked = await world.routed(session_id="s")
    saved = build.result(asked, output="the other attempt's")

    class Overtaken(FakeRunner):
        async def run(self, task: AgentTask) -> AgentAnswer:
            await world.sessions.create(
                SessionVersion(
                    tenant="default", session_id="s", version=1, saved_at=build.EPOCH, state={}, result=saved
                )
            )
            return await super().run(task)

    assert await world.deliver(world.work(Overtaken()), RESPONDER) is Disposition.ACK
    assert await result_of(world, asked) == saved

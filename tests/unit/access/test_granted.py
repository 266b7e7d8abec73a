"""Messages whose grant verifies, and what it does not cover: time, roles, tools, another place."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from tasks import keys as names
from tasks.access.gate import Caller
from tasks.access.policy import load_policy
from tasks.access.signing import Keys
from tasks.agents.fake import FakeRunner
from tasks.agents.types import AgentAnswer, AgentTask
from tasks.attempt import Disposition
from tasks.contracts.base import parse_versioned, sha256
from tasks.contracts.message import Body, Message
from tasks.contracts.request import Request
from tasks.contracts.result import Status
from tasks.errors import Denied
from tasks.stores.broker import Parcel
from tests.support import build, trust
from tests.support.guarded import POOLS, Guarded, ready
from tests.support.world import RESPONDER


@pytest.fixture
async def world() -> Any:
    made = Guarded()
    yield made
    await made.close()


# Messages whose grant verifies --------------------------------------------------------------------


ALTERED: dict[str, dict[str, Any]] = {
    "agent type": {"agent_type": "executor"},
    "fallback": {"fallback_from": "executor"},
    "intent": {"intent": build.intent("call_api")},
    "encoding": {"body": Body(encoding="object")},
    "times": {"accepted_at": build.EPOCH - timedelta(days=1)},
    "trace": {"traceparent": "00-x"},
}


@pytest.mark.parametrize("altered", ALTERED.values(), ids=ALTERED)
async def test_a_copy_that_was_altered_on_the_queue_does_not_change_the_outcome(
    world: Guarded, altered: dict[str, Any]
) -> None:
    asked = await world.routed(id="r1")
    [parcel] = world.broker.queues[RESPONDER]
    copy = parse_versioned(Message, parcel.message).changed(**altered)
    await world.broker.publish([Parcel(RESPONDER, "", copy.to_json(), world.clock.seconds)])
    world.broker.queues[RESPONDER].rotate(1)
    await world.deliver(world.work(world.runner), RESPONDER)
    assert world.runner.tasks == []
    assert len(world.broker.queues[names.QUARANTINE]) == 1
    await world.deliver(world.work(world.runner), RESPONDER)
    result = await world.result(asked)
    assert result is not None
    assert (result.status, result.intent, result.agent and result.agent.type) == (
        Status.SUCCEEDED,
        build.intent(),
        "responder",
    )


async def test_a_copy_that_nests_without_end_is_quarantined(world: Guarded) -> None:
    asked = await world.accept(id="r1")
    deep: Any = 0
    for _ in range(300):
        deep = [deep]
    copy = {**orjson.loads(world.broker.queues["requests"][0].message), "unknown": deep}
    assert await world.route().handle(copy, "tag") is Disposition.ACK
    assert (await world.actions(asked))["message.quarantined"] == 1


async def test_a_message_on_another_pools_queue_is_not_executed_there(world: Guarded) -> None:
    await world.routed(id="r1")
    message = world.broker.take(RESPONDER).message
    await world.broker.publish([Parcel("agents.executor", "", message, world.clock.seconds)])
    await world.deliver(world.work(world.runner, pool="agents.executor"), "agents.executor")
    assert world.runner.tasks == []
    assert len(world.broker.queues[names.QUARANTINE]) == 1


@pytest.mark.parametrize("queue", POOLS)
async def test_the_message_of_a_finished_request_is_dropped_and_on_record(world: Guarded, queue: str) -> None:
    asked = await world.accept(id="r1")
    first = orjson.loads(world.broker.queues["requests"][0].message)
    await world.deliver(world.route(), "requests")
    second = orjson.loads(world.broker.queues[RESPONDER][0].message)
    await world.deliver(world.work(world.runner), RESPONDER)
    before = dict(world.data.objects)
    for _ in range(2):
        await world.put(queue, first if queue == "requests" else second)
    world.register.forget("default/r1")
    await world.put(queue, first if queue == "requests" else second)
    assert world.data.objects == before
    assert len(world.runner.tasks) == 1
    assert (await world.actions(asked))["message.replayed"] == 3


@pytest.mark.parametrize("queue", POOLS)
async def test_the_grant_of_another_body_under_a_live_id_is_quarantined(world: Guarded, queue: str) -> None:
    """Whoever has the key may ask for anything of its own, but not under an id that is taken."""
    asked = await world.accept(id="r1")
    other = world.granted(asked.model_copy(update={"text": "Something else"}))
    await world.put(queue, ready(queue, other))
    assert world.runner.tasks == []
    assert (await world.actions(asked))["grant.forged"] == 1
    row = await world.register.get("default/r1")
    assert row is not None
    assert (row.digest, row.attempts) == (asked.digest(), 0)


@pytest.mark.parametrize("queue", POOLS)
async def test_an_expired_grant_ends_as_rejected(world: Guarded, queue: str) -> None:
    asked = await (world.accept if queue == "requests" else world.routed)(id="r1")
    world.clock.advance(15 * 86400)
    await world.deliver(world.hop(queue), queue)
    await assert_rejected(world, asked, "expired")


@pytest.mark.parametrize("queue", POOLS)
async def test_a_revoked_grant_ends_as_rejected(world: Guarded, queue: str) -> None:
    asked = await (world.accept if queue == "requests" else world.routed)(id="r1")
    world.clock.advance(10)
    world.revocations.entries["subject:default/alice"] = world.clock.seconds
    await world.deliver(world.hop(queue), queue)
    await assert_rejected(world, asked, "revoked")


async def test_an_expired_message_from_nowhere_writes_a_rejected_result_because_its_grant_verifies(
    world: Guarded,
) -> None:
    asked = build.request(id="r1")
    message = world.granted(asked)
    world.clock.advance(15 * 86400)
    await world.put("requests", message)
    await assert_rejected(world, asked, "expired")


async def test_work_that_waited_past_its_deadline_is_expired_and_not_rejected(world: Guarded) -> None:
    asked = await world.accept(id="r1", deadline=build.EPOCH + timedelta(hours=1))
    world.clock.advance(3600)
    await world.deliver(world.route(), "requests")
    result = await world.result(asked)
    assert result is not None
    assert result.status is Status.EXPIRED


async def test_work_that_waited_for_thirteen_days_is_done(world: Guarded) -> None:
    asked = await world.routed(id="r1")
    world.clock.advance(13 * 86400)
    await world.deliver(world.work(world.runner), RESPONDER)
    result = await world.result(asked)
    assert result is not None
    assert result.status is Status.SUCCEEDED


async def assert_rejected(world: Guarded, asked: Request, told: str) -> None:
    result = await world.result(asked)
    assert result is not None
    assert result.error is not None
    assert (result.status, result.error.code, result.output) == (Status.REJECTED, "denied", "")
    assert told in result.error.message
    [record] = [record for record in await world.records(asked) if record.action == "permission.violation"]
    assert (record.decision, record.details["subject"]) == ("deny", "alice")
    assert world.runner.tasks == []
    assert await world.register.get(names.ref(asked.tenant, asked.id)) is None


# What roles do not allow --------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"intent": "call_api"}, {"model": "gpt-4-1106-preview"}])
async def test_what_no_door_would_admit_is_rejected_at_both_hops(world: Guarded, fields: dict[str, str]) -> None:
    """A door that forgot to ask: the key is trusted, its roles are not enough."""
    for queue, name in zip(POOLS, ("r1", "r2"), strict=True):
        asked = build.request(id=name, **fields)
        await world.put(queue, ready(queue, world.granted(asked)))
        await assert_rejected(world, asked, "override")


async def test_the_sweeper_restores_a_row_with_its_grant(world: Guarded) -> None:
    asked = await world.accept(id="r1")
    world.broker.queues["requests"].clear()
    await world.sweep_until_published("requests")
    await world.deliver(world.route(), "requests")
    await world.deliver(world.work(world.runner), RESPONDER)
    result = await world.result(asked)
    assert result is not None
    assert result.status is Status.SUCCEEDED


async def test_a_message_whose_row_was_lost_restores_it_and_runs_once(world: Guarded) -> None:
    asked = await world.routed(id="r1")
    message = world.broker.queues[RESPONDER][0]
    world.register.rows.clear()
    await world.deliver(world.work(world.runner), RESPONDER)
    await world.put(RESPONDER, orjson.loads(message.message))
    result = await world.result(asked)
    assert result is not None
    assert result.status is Status.SUCCEEDED
    assert len(world.runner.tasks) == 1


async def test_a_row_that_no_door_wrote_gets_no_result_from_the_sweeper(world: Guarded) -> None:
    asked = build.request(id="r1", deadline=build.EPOCH + timedelta(seconds=1))
    message = build.message(asked)
    row = build.row("r1", message=message.to_json(), digest=asked.digest(), deadline=build.NOW + 1)
    await world.register.open([row], due=build.NOW + 10_000)
    world.clock.advance(60)
    assert (await world.sweeper().run_once()).expired == 1
    assert world.data.objects == {}
    assert await world.register.get("default/r1") is None
    assert [record.action.value for record in await world.records(asked)] == ["grant.forged"]
    assert len(world.broker.queues[names.QUARANTINE]) == 1


async def test_a_large_body_that_is_not_the_granted_one_is_not_executed(world: Guarded) -> None:
    world.settings = world.settings.changed(queue=world.settings.queue.changed(inline_bytes=1))
    asked = await world.accept("x" * 5000, id="r1")
    [key] = world.data.objects
    world.data.objects[key] = b'{"text":"something else"}'
    assert sha256(world.data.objects[key]) != asked.digest()
    await world.deliver(world.route(), "requests")
    result = await world.result(asked)
    assert result is not None
    assert (result.status, result.error and result.error.code) == (Status.FAILED, "grant_forged")


# The door -----------------------------------------------------------------------------------------


async def test_a_denial_at_the_door_is_an_outcome_and_on_record_and_holds_up_no_other(world: Guarded) -> None:
    asked = [
        build.request(id="r1"),
        build.request(id="r2", model="gpt-4"),
        build.request(id="r3", tenant="other"),
        build.request(id="r4"),
    ]
    one, two, three, four = await world.door().accept(asked, caller=world.caller)
    assert [type(outcome).__name__ for outcome in (one, two, three, four)] == [
        "Accepted",
        "Denied",
        "Denied",
        "Accepted",
    ]
    assert "model:override" in str(two)
    assert "may not sign for tenant 'other'" in str(three)
    assert set(world.register.rows) == {"default/r1", "default/r4"}
    for refused in asked[1:3]:
        [record] = await world.records(refused)
        assert (record.action, record.decision, record.actor) == ("request.rejected", "deny", "alice")
        assert record.tenant == refused.tenant


async def test_a_denial_does_not_tell_whether_the_id_is_in_use(world: Guarded) -> None:
    await world.accept(id="r1")
    [outcome] = await world.door().accept([build.request("other", id="r1")], caller=Caller("alice", ()))
    assert isinstance(outcome, Denied)


# Tools --------------------------------------------------------------------------------------------


async def test_a_tool_is_asked_for_by_name_and_refused_where_policy_or_time_say_so(
    world: Guarded, tmp_path: Path
) -> None:
    (tmp_path / "own.cedar").write_text(
        """permit (principal in Role::"user", action in [Action::"request:submit", Action::"agent:invoke"], resource);
           permit (principal in Role::"user", action == Action::"tool:use", resource == Tool::"sql_parser");"""
    )
    world.gate = trust.gate(
        Keys(world.alice.signers, world.ring),
        world.clock,
        revocations=world.revocations,
        policies=load_policy(tmp_path),
    )
    told: list[str] = []

    class Tries(FakeRunner):
        async def run(self, task: AgentTask) -> AgentAnswer:
            assert task.permit is not None
            for tool in ("sql_parser", "api_caller", "sql_parser"):
                try:
                    await task.permit(tool)
                    told.append(f"{tool} allowed")
                except Denied as error:
                    told.append(f"{tool} {str(error)[:14]}")
                world.clock.advance(8 * 86400)
            return await super().run(task)

    asked = await world.routed(id="r1")
    await world.deliver(world.work(Tries()), RESPONDER)
    assert told == ["sql_parser allowed", "api_caller alice (user) o", "sql_parser grant: expired"]
    violations = [record for record in await world.records(asked) if record.action == "permission.violation"]
    assert [record.resource for record in violations] == ["tool:api_caller", "tool:sql_parser"]


async def test_an_agent_that_roles_do_not_allow_is_not_run(world: Guarded, tmp_path: Path) -> None:
    (tmp_path / "own.cedar").write_text(
        """permit (principal in Role::"user", action == Action::"request:submit", resource);
           permit (principal in Role::"user", action == Action::"agent:invoke", resource == Agent::"planner");"""
    )
    strict = trust.gate(Keys(world.alice.signers, world.ring), world.clock, policies=load_policy(tmp_path))
    asked = await world.routed(id="r2")
    world.gate = strict
    await world.deliver(world.work(world.runner), RESPONDER)
    await assert_rejected(world, asked, "agent:invoke on agent 'responder'")
    asked = await world.accept(id="r1")
    await world.deliver(world.route(), "requests")
    await assert_rejected(world, asked, "agent:invoke on agent 'responder'")

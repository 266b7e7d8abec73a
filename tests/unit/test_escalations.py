"""From an agent that cannot answer, over a person, to the result of the next revision and the next turn."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest

from handlers.acting import Acting
from handlers.door import Accepted
from handlers.escalations import Escalations
from handlers.reopen import Reopener
from tasks import keys
from tasks.access.gate import Caller
from tasks.access.grants import REVISE
from tasks.access.signing import GRANT
from tasks.agents.fake import FakeRunner
from tasks.agents.types import AgentAnswer, AgentTask
from tasks.audit.read import read
from tasks.contracts.asked import Asked
from tasks.contracts.audit import Action
from tasks.contracts.base import parse_versioned
from tasks.contracts.message import Message
from tasks.contracts.request import Request
from tasks.contracts.result import IntentInfo, Result, Status
from tasks.errors import (
    Conflict,
    Denied,
    IntegrityError,
    InvalidInput,
    LimitExceeded,
    ModelRefused,
    NotFound,
    NotReady,
)
from tests.support import build, trust
from tests.support.world import HUMAN, RESPONDER, Died, Steps, World

STATE = {"type": "AssistantAgentState", "version": "1.0.0", "llm_context": {"messages": []}}


def desk(
    world: World, who: str = "olga", *, gate: Any = None, roles: tuple[str, ...] = ("operator",), **changes: Any
) -> Escalations:
    """What an operator sits at."""
    acting = Acting(Caller(who, roles), gate or world.gate, world.stream("door"), world.clock)
    parts = {"register": world.register, "relay": world.relay, "results": world.results, "sleep": asyncio.sleep}
    reopener = Reopener(acting, unpublished_seconds=10, **{**parts, **changes})
    bodies = world.deps(HUMAN).bodies
    return Escalations(acting, escalations=world.escalations, results=world.results, bodies=bodies, reopener=reopener)


def brief(task: AgentTask) -> AgentAnswer:
    return AgentAnswer(output="Call them.", model="fake", escalated=True, session_state=STATE)


async def wants_a_person(_asked: Asked) -> IntentInfo:
    return build.intent("talk_to_human")


async def escalated(world: World, text: str = "Where is my parcel?", **fields: Any) -> Request:
    """A request that waits for a person."""
    asked = await world.accept(text, **fields)
    await world.deliver(world.route(wants_a_person), "requests")
    await world.deliver(world.work(FakeRunner(brief), pool=HUMAN), HUMAN)
    return asked


async def newest(world: World, asked: Request) -> Result:
    found = await world.results.newest(asked.tenant, asked.id)
    assert found is not None
    return found


async def answered(world: World, asked: Request, text: str = "It is on its way.") -> Result:
    await desk(world).answer(asked.tenant, asked.id, text)
    runner = FakeRunner()
    await world.deliver(world.work(runner, pool=HUMAN), HUMAN)
    assert runner.tasks == []
    return await newest(world, asked)


async def listed(world: World, **fields: Any) -> list[str]:
    found: AsyncIterator[Any] = desk(world).list("default", **fields)
    return [each.request_id async for each in found]


# How it comes to one ------------------------------------------------------------------------------------


async def test_the_intent_for_a_person_opens_an_escalation(world: World) -> None:
    asked = await escalated(world, id="r1")
    assert (await newest(world, asked)).status is Status.ESCALATED
    found = await desk(world).show("default", "r1")
    assert (found.text, found.answer, found.newest.revision) == ("Where is my parcel?", None, 1)
    assert (found.escalation.reason, found.escalation.brief) == ("talk_to_human", "Call them.")
    [opened] = [record for record in await world.records(asked) if record.action == "escalation.opened"]
    assert (opened.resource, opened.reason) == (keys.escalation("default", "r1", 1), "talk_to_human")


@pytest.mark.parametrize(
    ("error", "reason"), [(ModelRefused("no"), "model_refused"), (LimitExceeded("5 turns"), "limit_exceeded")]
)
async def test_an_agent_that_fails_or_exceeds_its_limits_opens_one_at_once(
    world: World, error: Exception, reason: str
) -> None:
    asked = await world.routed()
    await world.deliver(world.work(FakeRunner(error)), RESPONDER)
    await world.deliver(world.work(FakeRunner(brief), pool=HUMAN), HUMAN)
    assert (await desk(world).show("default", asked.id)).escalation.reason == reason


async def test_an_agent_that_abstains_opens_one_with_its_reason_as_the_brief(world: World) -> None:
    asked = await world.routed()
    abstains = AgentAnswer(output="only a doctor may say", model="fake", escalated=True)
    await world.deliver(world.work(FakeRunner(abstains)), RESPONDER)
    escalation = (await desk(world).show("default", asked.id)).escalation
    assert (escalation.reason, escalation.brief) == ("abstained", "only a doctor may say")


async def test_a_person_is_asked_also_where_no_brief_can_be_written(world: World) -> None:
    asked = await world.accept(intent="talk_to_human")
    await world.deliver(world.route(), "requests")
    await world.deliver(world.work(FakeRunner(ModelRefused("no key")), pool=HUMAN), HUMAN)
    result = await newest(world, asked)
    assert (result.status, result.error and result.error.code) == (Status.ESCALATED, "model_refused")
    assert (await desk(world).show("default", asked.id)).escalation.brief == ""
    assert (await answered(world, asked)).output == "It is on its way."


@pytest.mark.parametrize("step", ["begin", "audit", "escalation", "session", "result", "notify", "clear"])
async def test_whoever_dies_there_is_one_escalation_and_it_can_be_answered(world: World, step: str) -> None:
    asked = await world.accept(intent="talk_to_human", session_id="s")
    await world.deliver(world.route(), "requests")
    with pytest.raises(Died):
        await world.deliver(world.work(FakeRunner(brief), pool=HUMAN, passed=Steps(step)), HUMAN)
    if step != "clear":
        await world.sweep_until_published(HUMAN)
        await world.deliver(world.work(FakeRunner(brief), pool=HUMAN), HUMAN)
    assert await listed(world) == [asked.id]
    assert (await answered(world, asked)).status is Status.SUCCEEDED


# The answer ---------------------------------------------------------------------------------------------


async def test_an_answer_becomes_the_result_of_the_next_revision(world: World) -> None:
    asked = await escalated(world, id="r1")
    world.clock.advance(3600)
    given = await desk(world).answer("default", "r1", "It is on its way.")
    assert (given.revision, given.fresh) == (2, True)
    row = await world.register.get("default/r1")
    assert row is not None
    assert (row.revision, row.queue, row.recorded) == (2, HUMAN, True)
    await world.deliver(world.work(pool=HUMAN), HUMAN)
    result = await newest(world, asked)
    assert (result.revision, result.status, result.output) == (2, Status.SUCCEEDED, "It is on its way.")
    assert result.agent is not None
    assert (result.agent.type, result.agent.model) == ("human", "olga")
    assert (await world.results.get("default", "r1")) != result
    assert await world.register.get("default/r1") is None
    [record] = [record for record in await world.records(asked) if record.action == "escalation.answered"]
    assert (record.actor, record.details["revision"]) == ("olga", 2)
    assert b"on its way" not in record.to_bytes()
    assert await listed(world) == []
    assert await listed(world, answered=True) == ["r1"]


async def test_the_same_answer_again_is_no_error_and_another_one_a_conflict(world: World) -> None:
    asked = await escalated(world)
    await desk(world).answer("default", asked.id, "yes")
    assert not (await desk(world, "otto").answer("default", asked.id, "yes")).fresh
    with pytest.raises(Conflict, match="answered by olga"):
        await desk(world, "otto").answer("default", asked.id, "no")
    await world.deliver(world.work(pool=HUMAN), HUMAN)
    assert not world.broker.queues[HUMAN]
    for _ in range(2):
        assert not (await desk(world, "otto").answer("default", asked.id, "yes")).fresh
        world.register.forget(f"default/{asked.id}")
    with pytest.raises(Conflict, match="answered by olga"):
        await desk(world, "otto").answer("default", asked.id, "no")
    assert (await newest(world, asked)).output == "yes"


async def test_of_operators_that_race_one_wins(world: World) -> None:
    asked = await escalated(world)
    outcomes = await asyncio.gather(
        *(desk(world, f"op{n}").answer("default", asked.id, f"answer {n}") for n in range(8)), return_exceptions=True
    )
    won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(won) == 1
    assert all(isinstance(outcome, Conflict) for outcome in outcomes if outcome is not won[0])
    await world.deliver(world.work(pool=HUMAN), HUMAN)
    assert (await newest(world, asked)).output == won[0].answer.text  # type: ignore[union-attr]


async def test_an_answer_whose_operator_died_is_sent_by_whoever_answers_next(world: World) -> None:
    asked = await escalated(world)

    class Dying(type(world.register)):  # type: ignore[misc]
        async def open(self, *_: Any, **__: Any) -> Any:
            raise Died("open")

    with pytest.raises(Died):
        await desk(world, register=Dying()).answer("default", asked.id, "first")
    assert await listed(world, answered=True) == [asked.id]
    with pytest.raises(Conflict):
        await desk(world, "otto").answer("default", asked.id, "second")
    await world.deliver(world.work(pool=HUMAN), HUMAN)
    result = await newest(world, asked)
    assert (result.output, result.agent and result.agent.model) == ("first", "olga")


async def test_what_nobody_published_the_sweeper_does(world: World) -> None:
    asked = await escalated(world)

    class Silent:
        async def publish(self, *_: Any, **__: Any) -> None:
            raise Died("publish")

    with pytest.raises(Died):
        await desk(world, relay=Silent()).answer("default", asked.id, "yes")
    await world.sweep_until_published(HUMAN)
    await world.deliver(world.work(pool=HUMAN), HUMAN)
    assert (await newest(world, asked)).output == "yes"
    assert (await world.actions(asked))["request.accepted"] == 1


@pytest.mark.parametrize("step", ["begin", "audit", "session", "result", "notify", "clear"])
async def test_a_worker_that_dies_with_an_answer_leaves_it_to_the_next(world: World, step: str) -> None:
    asked = await escalated(world, session_id="s")
    await desk(world).answer("default", asked.id, "yes")
    with pytest.raises(Died):
        await world.deliver(world.work(pool=HUMAN, passed=Steps(step)), HUMAN)
    if step != "clear":
        await world.sweep_until_published(HUMAN)
        await world.deliver(world.work(pool=HUMAN), HUMAN)
    assert (await newest(world, asked)).output == "yes"
    latest = await world.sessions.latest("default", "s")
    assert latest is not None
    assert (latest.version, latest.turn) == (2, (asked.id, 2))
    assert world.register.rows == {}


async def test_the_next_turn_of_the_session_sees_the_answer(world: World) -> None:
    asked = await escalated(world, session_id="s")
    await answered(world, asked)
    await world.routed("Thanks!", session_id="s")
    runner = FakeRunner(brief)
    await world.deliver(world.work(runner), RESPONDER)
    state = runner.tasks[0].session_state
    assert state is not None
    assert [message["content"] for message in state["llm_context"]["messages"]] == [
        "Where is my parcel?",
        "It is on its way.",
    ]


async def test_an_answer_is_a_turn_that_waits_for_the_one_before_it(world: World) -> None:
    asked = await escalated(world, session_id="s")
    between = await world.routed("And?", session_id="s")
    await desk(world).answer("default", asked.id, "yes")
    await world.deliver(world.work(pool=HUMAN), HUMAN)
    row = await world.register.get(f"default/{asked.id}")
    assert row is not None
    assert row.state == "parked"
    await world.deliver(world.work(FakeRunner(AgentAnswer("ok", "fake", session_state=STATE))), RESPONDER)
    await world.deliver(world.work(pool=HUMAN), HUMAN)
    assert (await world.result(between)) is not None
    assert (await newest(world, asked)).output == "yes"


async def test_an_answer_that_redis_lost_is_given_again(world: World) -> None:
    asked = await escalated(world, session_id="s")
    await desk(world).answer("default", asked.id, "yes")
    world.register = type(world.register)()
    world.broker = type(world.broker)()
    assert (await desk(world).answer("default", asked.id, "yes")).fresh
    await world.deliver(world.work(pool=HUMAN), HUMAN)
    assert (await newest(world, asked)).output == "yes"


async def test_a_session_that_is_no_agents_does_not_lose_the_answer(world: World) -> None:
    asked = await world.accept(intent="talk_to_human", session_id="s")
    await world.deliver(world.route(), "requests")
    await world.deliver(world.work(FakeRunner(), pool=HUMAN), HUMAN)
    assert (await answered(world, asked)).output == "It is on its way."


async def test_submitting_the_request_again_is_the_same_request_all_the_time(world: World) -> None:
    asked = await escalated(world, id="r1")
    caller = Caller("alice", ("user",))
    for _ in range(2):
        [outcome] = await world.door().accept([asked], caller=caller)
        assert isinstance(outcome, Accepted)
        assert outcome.acceptance.value == "same"
        await desk(world).answer("default", "r1", "yes")


# What is refused ----------------------------------------------------------------------------------------


async def test_what_was_not_escalated_waits_for_nobody(world: World) -> None:
    with pytest.raises(NotFound, match="no result of request 'none'"):
        await desk(world).show("default", "none")
    asked = await world.routed()
    await world.deliver(world.work(), RESPONDER)
    with pytest.raises(NotFound, match="is succeeded"):
        await desk(world).answer("default", asked.id, "yes")


@pytest.mark.parametrize("text", ["", "  \n", "x" * 33_000])
async def test_an_answer_says_something_and_is_no_book(world: World, text: str) -> None:
    asked = await escalated(world)
    with pytest.raises(InvalidInput, match="answer: "):
        await desk(world).answer("default", asked.id, text)
    assert await listed(world) == [asked.id]


async def test_after_the_deadline_nobody_waits_for_an_answer(world: World) -> None:
    asked = await escalated(world, deadline=build.EPOCH + timedelta(hours=1))
    world.clock.advance(3600)
    with pytest.raises(InvalidInput, match="deadline"):
        await desk(world).answer("default", asked.id, "yes")
    assert await world.escalations.answer("default", asked.id, 1) is None


async def test_a_revision_that_does_not_leave_the_register_is_said(world: World) -> None:
    asked = await world.accept(intent="talk_to_human")
    await world.deliver(world.route(), "requests")
    with pytest.raises(Died):
        await world.deliver(world.work(FakeRunner(brief), pool=HUMAN, passed=Steps("result")), HUMAN)
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    with pytest.raises(NotReady, match="still being closed"):
        await desk(world, sleep=sleep).answer("default", asked.id, "yes")
    assert len(waited) > 3


async def test_a_step_or_what_has_not_ended_cannot_be_opened_again(world: World) -> None:
    asked = await world.routed()
    message = parse_versioned(Message, orjson.loads(world.broker.take(RESPONDER).message))
    reopener = desk(world)._reopener
    with pytest.raises(InvalidInput, match="has no result yet"):
        await reopener.prepare(message, Action.ESCALATION_ANSWERED, asked.id)
    with pytest.raises(InvalidInput, match="a step of a plan"):
        await reopener.prepare(message.changed(step="s1"), Action.ESCALATION_ANSWERED, asked.id)


async def test_without_an_agent_type_the_next_revision_begins_at_the_intent_pool(world: World) -> None:
    """What a redrive does."""
    asked = await world.routed(id="r1")
    message = parse_versioned(Message, orjson.loads(world.broker.queues[RESPONDER][0].message))
    await world.deliver(world.work(FakeRunner(AgentAnswer("", "fake", escalated=True))), RESPONDER)
    reopener = desk(world)._reopener
    assert await reopener.open(await reopener.prepare(message, Action.ESCALATION_ANSWERED, "dead-letters"))
    await world.deliver(world.route(), "requests")
    await world.deliver(world.work(FakeRunner("done at last")), RESPONDER)
    result = await newest(world, asked)
    assert (result.revision, result.output) == (2, "done at last")


# Who may ------------------------------------------------------------------------------------------------


class Guard:
    """Signed grants: alice asks, olga may answer for her, uma is a user, ida may sign for herself alone."""

    def __init__(self, world: World) -> None:
        scopes = {
            "alice": trust.scope(),
            "olga": trust.scope(purposes=(GRANT, REVISE), subjects=("olga", "alice"), roles=("operator", "user")),
            "uma": trust.scope(subjects=("uma",), roles=("user",)),
            "ida": trust.scope(purposes=(GRANT, REVISE), subjects=("ida",), roles=("operator",)),
        }
        made = {name: trust.keys(scope) for name, scope in scopes.items()}
        ring = trust.KeyRing(key for keyset in made.values() for key in keyset.ring)
        self.gates = {name: trust.gate(trust.Keys(keyset.signers, ring), world.clock) for name, keyset in made.items()}


async def test_a_grant_names_who_acts_and_for_whom(world: World) -> None:
    guard = Guard(world)
    world.gate = guard.gates["alice"]
    asked = await escalated(world)
    await desk(world, "olga", gate=guard.gates["olga"]).answer("default", asked.id, "yes")
    row = await world.register.get(f"default/{asked.id}")
    assert row is not None
    grant = world.gate.verify(parse_versioned(Message, orjson.loads(row.message)))
    assert (grant.subject, grant.actor, grant.claims.rev) == ("alice", "olga", 2)
    assert set(grant.claims.roles) == {"user"}
    await world.deliver(world.work(pool=HUMAN), HUMAN)
    assert (await newest(world, asked)).output == "yes"


async def test_a_user_may_not_answer_and_that_is_on_record(world: World) -> None:
    guard = Guard(world)
    world.gate = guard.gates["alice"]
    asked = await escalated(world)
    table = desk(world, "uma", gate=guard.gates["uma"], roles=("user",))
    with pytest.raises(Denied, match="escalation:answer"):
        await table.answer("default", asked.id, "yes")
    assert await world.escalations.answer("default", asked.id, 1) is None
    actions = [(record.actor, record.action.value) for record in await read(world.audit_store)]
    assert ("uma", "permission.violation") in actions


async def test_an_operator_whose_key_may_not_sign_for_the_subject_leaves_no_answer_behind(world: World) -> None:
    guard = Guard(world)
    world.gate = guard.gates["alice"]
    asked = await escalated(world)
    with pytest.raises(Denied, match="subject 'alice'"):
        await desk(world, "ida", gate=guard.gates["ida"]).answer("default", asked.id, "yes")
    assert await world.escalations.answer("default", asked.id, 1) is None


async def test_an_escalation_that_somebody_changed_in_the_bucket_is_not_opened(world: World) -> None:
    guard = Guard(world)
    world.gate = guard.gates["alice"]
    asked = await escalated(world)
    key = keys.escalation("default", asked.id, 1)
    stored = orjson.loads(world.data.objects[key])
    stored["message"]["digest"] = "0" * 64
    world.data.objects[key] = orjson.dumps(stored)
    with pytest.raises(IntegrityError, match="another body"):
        await desk(world, "olga", gate=guard.gates["olga"]).answer("default", asked.id, "yes")


# Lists --------------------------------------------------------------------------------------------------


async def test_a_list_is_by_state_and_age_and_reads_nothing(world: World) -> None:
    for name in ("a", "b.r1x", "c:answer"):
        await escalated(world, id=name)
    await answered(world, build.request(id="b.r1x"), "yes")
    assert await listed(world) == ["a", "c:answer"]
    assert await listed(world, answered=None) == ["a", "b.r1x", "c:answer"]
    read_before = dict(world.data.objects)
    assert await listed(world, older_than=timedelta(days=3650)) == []
    assert world.data.objects == read_before

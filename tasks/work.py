"""Hop 2: run the typed agent, then the ordered tail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import replace
from typing import Final, TypeVar

from tasks import keys
from tasks.access.cuts import redacted_start
from tasks.access.policy import Act
from tasks.agents.state import with_turn
from tasks.agents.types import HUMAN_ESCALATION, AgentAnswer, AgentRunner, AgentTask, Planner, ToolCall
from tasks.attempt import Attempt, Deps
from tasks.contracts.asked import Asked
from tasks.contracts.audit import Action, Decision, Event
from tasks.contracts.base import sha256
from tasks.contracts.escalation import HUMAN, EscalationAnswer
from tasks.contracts.journal import spelt
from tasks.contracts.message import Message
from tasks.contracts.plan import OnFailure, PlanStep
from tasks.contracts.result import AgentInfo, ErrorInfo, Result, Status, Step, Timings, total
from tasks.contracts.row import Stage
from tasks.contracts.session import SessionVersion
from tasks.errors import (
    Denied,
    ForgedMessage,
    InvalidInput,
    MalformedMessage,
    RequestEnded,
    StoreError,
    ToolRefused,
)
from tasks.fanout import FanOut, Parked, fallbacks
from tasks.finish import EXHAUSTED, Outcome
from tasks.hop import Hop
from tasks.join import (
    MAX_DETAIL,
    Gathered,
    composed,
    gather,
    joined,
    may_have_plan,
    text_for,
    text_for_answer,
    with_tree,
)
from tasks.log import get_logger
from tasks.settings import AgentSettings
from tasks.turns import find_turn

log = get_logger()

T = TypeVar("T")
MAX_ARGUMENTS: Final = 2000
"""Characters of a tool call's arguments in its audit record."""


class Work(Hop):
    """Runs the agents of one pool, many requests at a time."""

    stage = Stage.WORK

    def __init__(self, deps: Deps, runner: AgentRunner, planner: Planner | None = None) -> None:
        super().__init__(deps)
        self._runner = runner
        self._fan_out = FanOut(deps, planner, self.event) if planner else None

    async def attempt(self, attempt: Attempt, request: Asked) -> None:
        """Answer ``request`` and run the tail."""
        agent = self._agent(attempt)
        self.allow(attempt, Act.AGENT_INVOKE, agent.type)
        if attempt.message.step and await self._has_ended(attempt.message):
            await self.end(attempt, Status.CANCELLED, ErrorInfo(code="ended", message="the request has ended"))
            return
        if request.session_id is None:
            answered = await self._answered(attempt, request, agent, None)
            if answered:
                await self._finish(attempt, agent, answered[0], None)
            return
        turn = await find_turn(attempt.message, request.session_id, self.deps.sessions, self.deps.results)
        if turn.standing:
            await self.close(attempt, turn.standing)
            return
        latest = turn.latest
        answered = await self._answered(attempt, request, agent, latest.state if latest and latest.turn else None)
        if answered is None:
            return
        result, state = answered
        version = SessionVersion(
            tenant=request.tenant,
            session_id=request.session_id,
            version=latest.version + 1 if latest else 1,
            saved_at=self.deps.now(),
            state=state,
            result=result,
        )
        await self._finish(attempt, agent, result, version)

    async def read(self, attempt: Attempt) -> Asked:
        """See :class:`tasks.hop.Hop`. A step is read from the plan, and from the results of those that it needs."""
        message = attempt.message
        if message.step is None:
            return await super().read(attempt)
        gathered, step = await self._step(attempt)
        missing = [need for need in step.depends_on if need not in gathered.results]
        if missing:
            raise StoreError(f"{attempt.ref}: the results of {', '.join(missing)} are not in object storage")
        return Asked(
            id=message.id,
            tenant=message.tenant,
            text=text_for(step, gathered.results),
            attachments=gathered.plan.attachments,
            priority=message.priority,
            deadline=message.deadline,
            traceparent=message.traceparent,
        )

    async def _step(self, attempt: Attempt) -> tuple[Gathered, PlanStep]:
        """Return the plan that this step's grant names, and the step in it.

        Raises:
            StoreError: there is no plan.
            ForgedMessage: it is another one.
        """
        message, deps = attempt.message, self.deps
        gathered = await gather(deps.plans, deps.results, message.tenant, message.id, message.revision)
        if gathered is None:
            raise StoreError(f"{attempt.ref}: its plan is not in object storage")
        deps.gate.verify_plan(attempt.grant, gathered.digest)
        step = gathered.plan.step(message.step or "")
        if step is None:
            raise ForgedMessage(f"{attempt.ref}: its plan has no such step")
        return gathered, step

    async def _has_ended(self, message: Message) -> bool:
        """Tell whether the request of a step has its result, so that nobody waits for the step."""
        return await self.deps.results.get(message.tenant, message.id, message.revision) is not None

    def check(self, message: Message) -> None:
        """See :class:`tasks.hop.Hop`."""
        super().check(message)
        if message.agent_type is None:
            raise MalformedMessage(f"{message.id}: no agent type in a message to an agent pool")
        if keys.agent_pool(message.agent_type) != keys.base_pool(self.deps.pool):
            raise MalformedMessage(f"{message.id}: is for agent type {message.agent_type!r}, not for {self.deps.pool}")

    async def give_up(self, attempt: Attempt, error: ErrorInfo) -> None:
        """Hand over to the agent type's fallback where there is one and it was not tried yet; else end as failed."""
        agent = self._configured(attempt.message.agent_type)
        # A request that kills its workers is not passed on to kill the next pool's.
        crashed = attempt.number > self.deps.settings.queue.attempts
        fallback = None if crashed or agent is None else await self._fallback(attempt, agent)
        if agent is None or fallback is None:
            await self.end(attempt, Status.ESCALATED if _is_for_a_person(attempt, error) else Status.FAILED, error)
            return
        message = attempt.message.changed(agent_type=fallback, fallback_from=agent.type, fallback_code=error.code)
        pool = self.deps.place(fallback)
        fallen = self.event(attempt, Action.AGENT_FALLBACK, resource=pool, reason=f"{error.code}: {error.message}")
        await self.deps.audit.commit([fallen])
        await self.hand_over(attempt, message, pool)

    async def _fallback(self, attempt: Attempt, agent: AgentSettings) -> str | None:
        """Return the agent type that takes over, None where there is none left. A step's plan says whether one may."""
        if attempt.message.fallback_from:
            return None
        if attempt.message.step is None:
            return agent.fallback
        message, deps = attempt.message, self.deps
        stored = await deps.plans.get(message.tenant, message.id, message.revision)
        step = stored.plan.step(attempt.message.step) if stored else None
        # Whatever the bucket says: only an agent type that the step's grant names gets past the next hop.
        return next(iter(fallbacks(deps.settings.agents, step)), None) if step else None

    def _agent(self, attempt: Attempt) -> AgentSettings:
        agent = self._configured(attempt.message.agent_type)
        if agent is None:
            raise MalformedMessage(f"{attempt.message.id}: {attempt.message.agent_type!r} is no agent type here")
        return agent

    def _configured(self, agent_type: str | None) -> AgentSettings | None:
        return next((agent for agent in self.deps.settings.agents if agent.type == agent_type), None)

    async def _answered(
        self, attempt: Attempt, request: Asked, agent: AgentSettings, state: dict[str, object] | None
    ) -> tuple[Result, dict[str, object]] | None:
        """Return the result and the session's new state; None where the attempt has ended without one."""
        given = await self._given(attempt)
        if given:
            # A person has answered the revision before: that is the answer, and nobody is asked again.
            answer = AgentAnswer(output=given.text, model=given.answered_by)
            result = self._result(attempt, request, agent, answer, 0.0)
            by = AgentInfo(type=HUMAN, model=given.answered_by)
            return result.changed(agent=by), _with_answer(state, request.text, given)
        task = self._task(attempt, request, agent, state)
        if self._fan_out and agent.planning and attempt.message.step is None:
            made = await self._within(attempt, self._fan_out.proceed(attempt, request, task))
            if isinstance(made, Parked):
                return None
            if isinstance(made, Gathered):
                return await self._conclude(attempt, request, task, made, self._fan_out.planner)
            task = replace(task, spent=made.spent)
        answer, milliseconds = await self._run(attempt, self._runner.run(task))
        result = self._result(attempt, request, agent, answer, milliseconds)
        if agent.planning:
            result = result.changed(usage=total([result.usage, task.spent.usage]))
        elif may_have_plan(self.deps.settings, attempt.message):
            result = await with_tree(result, self.deps.plans, self.deps.results, self.deps.redact)
        return result, answer.session_state or {}

    async def _given(self, attempt: Attempt) -> EscalationAnswer | None:
        """Return what a person answered to the revision before this one."""
        message = attempt.message
        if message.revision == 1 or message.step or message.agent_type != HUMAN_ESCALATION:
            return None
        return await self.deps.escalations.answer(message.tenant, message.id, message.revision - 1)

    async def _conclude(
        self, attempt: Attempt, request: Asked, task: AgentTask, gathered: Gathered, planner: Planner
    ) -> tuple[Result, dict[str, object]] | None:
        """Write the answer from what the steps found; where one that is needed failed, end as the plan says."""
        failed = gathered.fatal
        if failed:
            await self._fail(attempt, failed, gathered.results[failed.id].error)
            return None
        found, rule = text_for_answer(request.text, gathered), composed(gathered)
        answer, milliseconds = await self._run(attempt, planner.conclude(task, found, rule))
        result = self._result(attempt, request, task.agent, answer, milliseconds + gathered.plan.milliseconds)
        timings = result.timings.changed(started_at=gathered.plan.started_at)
        return joined(result.changed(timings=timings), gathered, self.deps.redact), answer.session_state or {}

    async def _fail(self, attempt: Attempt, step: PlanStep, error: ErrorInfo | None) -> None:
        """End the request for the step that failed, or hand it to the planner's own fallback."""
        why = f"step {step.id}: {error.code}: {error.message}" if error else f"step {step.id}: it was escalated"
        if step.on_failure is OnFailure.FALL_BACK:
            await self.give_up(attempt, ErrorInfo(code="step_failed", message=why))
            return
        # What used up its attempts is a dead letter, by whichever step it was.
        is_dead = error is not None and error.code == EXHAUSTED
        tried = error.attempts if error else None
        info = ErrorInfo(code=EXHAUSTED if is_dead else "step_failed", message=why, attempts=tried)
        await self.end(attempt, Status.FAILED, info)

    def _task(
        self, attempt: Attempt, request: Asked, agent: AgentSettings, state: dict[str, object] | None
    ) -> AgentTask:
        pool = keys.agent_pool(agent.type)
        self.deps.audit.report(self.event(attempt, Action.AGENT_STARTED, resource=pool))
        # The model that was asked for may be why the request fell back: the fallback answers with its own.
        model = None if attempt.message.fallback_from else request.model
        if model:
            self.deps.audit.report(self.event(attempt, Action.MODEL_OVERRIDE, resource=pool, model=model))

        def on_tool(call: ToolCall) -> None:
            self.deps.audit.report(self._tool_event(attempt, call))

        async def permit(tool: str) -> None:
            try:
                await self.deps.gate.standing(attempt.grant)
                self.allow(attempt, Act.TOOL_USE, tool)
            except Denied as error:
                self.deps.audit.report(self.violation(attempt, error, resource=f"tool:{tool}"))
                raise

        return AgentTask(
            agent=agent,
            model=model,
            request_id=request.id,
            tenant=request.tenant,
            text=request.text,
            session_state=state,
            on_tool=on_tool,
            permit=permit,
            wanted=lambda: self.deps.heartbeat.check(attempt.id),
            revision=attempt.message.revision,
            step=attempt.message.step or "",
            journal=self.deps.journal,
            attachments=request.attachments,
        )

    async def _run(self, attempt: Attempt, answering: Awaitable[AgentAnswer]) -> tuple[AgentAnswer, float]:
        """Return the answer and the milliseconds that it took."""
        begun = time.perf_counter()
        answer = await self._within(attempt, answering)
        return answer, round((time.perf_counter() - begun) * 1000, 3)

    async def _within(self, attempt: Attempt, doing: Awaitable[T]) -> T:
        """Wait for ``doing``, until the request's deadline at most."""
        async with asyncio.timeout(self._seconds_left(attempt)):
            return await doing

    def _seconds_left(self, attempt: Attempt) -> float | None:
        deadline = attempt.message.deadline
        return (deadline - self.deps.now()).total_seconds() if deadline else None

    def _tool_event(self, attempt: Attempt, call: ToolCall) -> Event:
        arguments = spelt(call.arguments)
        called = self.event(
            attempt,
            Action.TOOL_CALLED,
            resource=f"tool:{call.name}",
            reason=call.error,
            arguments=redacted_start(arguments.decode(), MAX_ARGUMENTS, self.deps.redact),
            arguments_sha256=sha256(arguments),
            ok=call.ok,
            code=call.code,
            replayed=call.replayed,
            milliseconds=call.milliseconds,
        )
        return called.changed(decision=Decision.DENY) if call.code == ToolRefused.code else called

    def _result(
        self,
        attempt: Attempt,
        request: Asked,
        agent: AgentSettings,
        answer: AgentAnswer,
        milliseconds: float,
    ) -> Result:
        message = attempt.message
        return Result(
            request_id=request.id,
            revision=message.revision,
            step=message.step,
            tenant=request.tenant,
            status=Status.ESCALATED if answer.escalated else Status.SUCCEEDED,
            intent=message.intent,
            agent=AgentInfo(type=agent.type, model=answer.model),
            output=answer.output,
            usage=answer.usage,
            timings=Timings(
                accepted_at=message.accepted_at,
                routed_at=message.routed_at,
                started_at=attempt.started_at,
                finished_at=self.deps.now(),
                classify_ms=message.classify_ms,
                agent_ms=milliseconds,
            ),
            session_id=request.session_id,
            steps=tuple(map(self._told, answer.steps)),
            request_digest=message.digest,
            attempt=attempt.id,
        )

    def _told(self, step: Step) -> Step:
        return step.changed(detail=redacted_start(step.detail, MAX_DETAIL, self.deps.redact))

    async def _finish(
        self, attempt: Attempt, agent: AgentSettings, result: Result, version: SessionVersion | None
    ) -> None:
        events = []
        if version:
            await self._check_wanted(attempt)
            saved = keys.session(version.tenant, version.session_id, version.version)
            events.append(self.event(attempt, Action.SESSION_SAVED, resource=saved))
        outcome = Outcome(attempt.message, result, actor=self.deps.worker, session=version, events=events)
        await self.finish(attempt, outcome)

    async def _check_wanted(self, attempt: Attempt) -> None:
        """Raise :class:`RequestEnded` where the heartbeat would say so next: a session remembers no cancelled turn."""
        message, deps = attempt.message, self.deps
        [is_open] = await deps.register.are_open([attempt.ref])
        if not is_open and await deps.results.get(message.tenant, message.id, message.revision):
            raise RequestEnded(f"{attempt.ref}: has ended")


def _is_for_a_person(attempt: Attempt, error: ErrorInfo) -> bool:
    """Tell whether a person is asked although nobody could write a brief for them. Used-up attempts are redriven."""
    message = attempt.message
    return message.agent_type == HUMAN_ESCALATION and message.step is None and error.code != EXHAUSTED


def _with_answer(state: dict[str, object] | None, asked: str, given: EscalationAnswer) -> dict[str, object]:
    """Return the session's state with what a person answered, so that the next turn sees it."""
    try:
        return with_turn(state, asked, given.text, source=HUMAN)
    except InvalidInput as error:
        # The answer counts more than a session that no agent can go on from anyway.
        log.warning("the answer is not in the session", reason=str(error))
        return state or {}

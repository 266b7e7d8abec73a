"""Hop 2: run the typed agent, then the ordered tail."""

from __future__ import annotations

import asyncio
import time

from tasks import keys
from tasks.access.policy import Act
from tasks.agents.types import AgentAnswer, AgentRunner, AgentTask, ToolCall
from tasks.attempt import Attempt, Deps
from tasks.contracts.asked import Asked
from tasks.contracts.audit import Action, Event
from tasks.contracts.base import canonical, sha256
from tasks.contracts.message import Message
from tasks.contracts.result import AgentInfo, ErrorInfo, Result, Status, Timings
from tasks.contracts.row import Stage
from tasks.contracts.session import SessionVersion
from tasks.errors import Denied, MalformedMessage
from tasks.finish import Outcome
from tasks.hop import Hop
from tasks.settings import AgentSettings


class Work(Hop):
    """Runs the agents of one pool, many requests at a time."""

    stage = Stage.WORK

    def __init__(self, deps: Deps, runner: AgentRunner) -> None:
        super().__init__(deps)
        self._runner = runner

    async def attempt(self, attempt: Attempt, request: Asked) -> None:
        """Answer ``request`` and run the tail."""
        agent = self._agent(attempt)
        self.allow(attempt, Act.AGENT_INVOKE, agent.type)
        if request.session_id is None:
            answer, milliseconds = await self._answer(attempt, request, agent, None)
            result = self._result(attempt, request, agent, answer, milliseconds)
            await self._finish(attempt, agent, result, None)
            return
        latest = await self.deps.sessions.latest(request.tenant, request.session_id)
        if latest and (latest.result.request_id, latest.result.revision) == (
            request.id,
            attempt.message.revision,
        ):
            # An attempt before this one took the turn and died before it wrote the result, which lies beside the state.
            await self._finish(attempt, agent, latest.result, None)
            return
        answer, milliseconds = await self._answer(attempt, request, agent, latest.state if latest else None)
        result = self._result(attempt, request, agent, answer, milliseconds)
        version = SessionVersion(
            tenant=request.tenant,
            session_id=request.session_id,
            version=latest.version + 1 if latest else 1,
            saved_at=self.deps.now(),
            state=answer.session_state or {},
            result=result,
        )
        await self._finish(attempt, agent, result, version)

    def check(self, message: Message) -> None:
        """See :class:`tasks.hop.Hop`."""
        if message.agent_type is None:
            raise MalformedMessage(f"{message.id}: no agent type in a message to an agent pool")
        if keys.agent_pool(message.agent_type) != self.deps.pool:
            raise MalformedMessage(f"{message.id}: is for agent type {message.agent_type!r}, not for {self.deps.pool}")

    async def give_up(self, attempt: Attempt, error: ErrorInfo) -> None:
        """Hand over to the agent type's fallback where there is one and it was not tried yet; else end as failed."""
        agent = self._configured(attempt.message.agent_type)
        # A request that kills its workers is not passed on to kill the next pool's.
        crashed = attempt.number > self.deps.settings.queue.attempts
        if agent is None or agent.fallback is None or attempt.message.fallback_from or crashed:
            await self.end(attempt, Status.FAILED, error)
            return
        message = attempt.message.changed(agent_type=agent.fallback, fallback_from=agent.type)
        pool = keys.agent_pool(agent.fallback)
        fallen = self.event(attempt, Action.AGENT_FALLBACK, resource=pool, reason=f"{error.code}: {error.message}")
        await self.deps.audit.commit([fallen])
        await self.hand_over(attempt, message, pool)

    def _agent(self, attempt: Attempt) -> AgentSettings:
        agent = self._configured(attempt.message.agent_type)
        if agent is None:
            raise MalformedMessage(f"{attempt.message.id}: {attempt.message.agent_type!r} is no agent type here")
        return agent

    def _configured(self, agent_type: str | None) -> AgentSettings | None:
        return next((agent for agent in self.deps.settings.agents if agent.type == agent_type), None)

    async def _answer(
        self, attempt: Attempt, request: Asked, agent: AgentSettings, state: dict[str, object] | None
    ) -> tuple[AgentAnswer, float]:
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

        task = AgentTask(
            agent=agent,
            model=model,
            request_id=request.id,
            tenant=request.tenant,
            text=request.text,
            session_state=state,
            on_tool=on_tool,
            permit=permit,
        )
        begun = time.perf_counter()
        async with asyncio.timeout(self._seconds_left(attempt)):
            answer = await self._runner.run(task)
        return answer, round((time.perf_counter() - begun) * 1000, 3)

    def _seconds_left(self, attempt: Attempt) -> float | None:
        deadline = attempt.message.deadline
        return (deadline - self.deps.now()).total_seconds() if deadline else None

    def _tool_event(self, attempt: Attempt, call: ToolCall) -> Event:
        return self.event(
            attempt,
            Action.TOOL_CALLED,
            resource=f"tool:{call.name}",
            reason=call.error,
            arguments_sha256=sha256(canonical(call.arguments)),
            ok=call.ok,
            milliseconds=call.milliseconds,
        )

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
            steps=tuple(step.changed(detail=self.deps.redact(step.detail)) for step in answer.steps),
            request_digest=message.digest,
            attempt=attempt.id,
        )

    async def _finish(
        self, attempt: Attempt, agent: AgentSettings, result: Result, version: SessionVersion | None
    ) -> None:
        events = []
        if result.status is Status.ESCALATED:
            events.append(self.event(attempt, Action.ESCALATION_OPENED, resource=keys.agent_pool(agent.type)))
        if version:
            saved = keys.session(version.tenant, version.session_id, version.version)
            events.append(self.event(attempt, Action.SESSION_SAVED, resource=saved))
        outcome = Outcome(attempt.message, result, actor=self.deps.worker, session=version, events=events)
        await self.deps.finisher.finish(outcome)

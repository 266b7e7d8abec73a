"""Planner fan-out: makes the plan once, sets its steps off, and comes back when they have ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from tasks import keys
from tasks.access.policy import Act
from tasks.agents.drafts import instructions, read_draft
from tasks.agents.enumerated import enumerated
from tasks.agents.instructions import instructions_for
from tasks.agents.types import HUMAN_ESCALATION, AgentAnswer, AgentTask, Planner, Spent
from tasks.attempt import Attempt, Deps
from tasks.contracts.asked import Asked
from tasks.contracts.audit import Action, Event
from tasks.contracts.base import sha256
from tasks.contracts.message import Body
from tasks.contracts.plan import OnFailure, Plan, PlanStep, check_plan
from tasks.contracts.row import Row, Stage
from tasks.errors import Denied, InvalidPlan, StoreError
from tasks.join import Gathered, gather, is_vital
from tasks.settings import AgentSettings, PlanSettings
from tasks.stores.register import Branch
from tasks.stores.relay import publish_waiting, row_id_of

_MOST: Final = 64
ENUMERATED: Final = "enumerated (no language model)"
"""What a plan calls its model where the request's own numbers were the plan."""


@dataclass(frozen=True, slots=True)
class Parked:
    """The steps are on their way: the request waits for them in the register."""


@dataclass(frozen=True, slots=True)
class Unplanned:
    """There is no plan: the agent answers by itself. ``spent`` went on finding that out."""

    spent: Spent = field(default_factory=Spent)


@dataclass(frozen=True, slots=True)
class _Draft:
    steps: tuple[PlanStep, ...] = ()
    model: str = ""
    spent: Spent = field(default_factory=Spent)


class FanOut:
    """For the pools whose agent type plans. ``report`` makes an audit event about an attempt."""

    def __init__(self, deps: Deps, planner: Planner, report: Callable[..., Event]) -> None:
        self._deps = deps
        self.planner = planner
        self._event = report

    async def proceed(self, attempt: Attempt, asked: Asked, task: AgentTask) -> Gathered | Parked | Unplanned:
        """Bring the request as far as it can come: to its plan, to its steps, or to their results.

        Raises:
            ModelError: no plan could be drafted. Trying again may help.
            LimitExceeded: drafting it takes more turns or tokens than the agent type may use.
            NotReady: this process has no key for the grants of steps.
        """
        planning = task.agent.planning or PlanSettings(max_steps=0)
        deps, message = self._deps, attempt.message
        gathered = await gather(deps.plans, deps.results, message.tenant, message.id, message.revision)
        if gathered is None:
            made = await self._plan(attempt, asked, task, planning)
            if isinstance(made, Unplanned):
                return made
            gathered = made
        else:
            # The settings may have changed since, and the bucket may have been written to.
            check_plan(gathered.plan.steps, agents=self._types(), max_steps=_MOST, max_depth=_MOST)
        if gathered.pending and not gathered.fatal and await self._send(attempt, gathered, planning):
            return Parked()
        if gathered.pending and not gathered.fatal:
            # The last steps ended since they were looked at.
            gathered = await gather(deps.plans, deps.results, message.tenant, message.id, message.revision) or gathered
        if gathered.pending and not gathered.fatal:
            raise StoreError(f"{message.id}: steps that have ended have no result")
        return gathered

    async def _plan(
        self, attempt: Attempt, asked: Asked, task: AgentTask, planning: PlanSettings
    ) -> Gathered | Unplanned:
        begun = time.perf_counter()
        draft = await self._drafted(attempt, task, planning)
        if not draft.steps:
            return Unplanned(draft.spent)
        message = attempt.message
        plan = Plan(
            tenant=message.tenant,
            request_id=message.id,
            revision=message.revision,
            started_at=attempt.started_at,
            model=draft.model,
            usage=draft.spent.usage,
            milliseconds=round((time.perf_counter() - begun) * 1000, 3),
            attachments=asked.attachments,
            steps=draft.steps,
        )
        # Whoever may not sign for steps is to find out before there is a plan.
        self._grant(attempt, plan.steps[0], "0" * 64)
        created = self._event(
            attempt,
            Action.PLAN_CREATED,
            resource=keys.plan(message.tenant, message.id, message.revision),
            sha256=sha256(plan.to_bytes()),
            steps=len(plan.steps),
            model=plan.model,
        )
        task.wanted()
        await self._deps.audit.commit([created])
        stored = await self._deps.plans.create(plan)
        self._deps.finisher.passed("plan")
        return Gathered(stored.plan, stored.digest, {})

    async def _drafted(self, attempt: Attempt, task: AgentTask, planning: PlanSettings) -> _Draft:
        types = [name for name in self._types() if self._permits(attempt, name)]
        agents = [self._deps.settings.agent(name) for name in types]
        told = [(agent, instructions_for(agent)) for agent in agents]
        asking = replace(task, agent=task.agent.changed(instructions=instructions(planning, told)))
        first = await self.planner.draft(asking)
        if first is None:
            return self._enumerated(attempt, task.text, planning, types)
        spent = asking.spent.plus(first)
        steps, fault = _read(first, planning, types)
        if not fault:
            return _Draft(steps, first.model, spent)
        again = (
            f"{task.text}\n\nThis plan is of no use: {first.output[:4000]}\nIt is wrong: {fault}\nWrite a right one."
        )
        second = await self.planner.draft(replace(asking, text=again, spent=spent))
        if second:
            steps, fault = _read(second, planning, types)
            spent = spent.plus(second)
        model = (second or first).model
        if fault:
            self._refuse(attempt, fault, model)
        return _Draft(steps, model, spent)

    def _enumerated(self, attempt: Attempt, text: str, planning: PlanSettings, types: list[str]) -> _Draft:
        steps = enumerated(text, self._deps.settings, types)
        if not steps:
            return _Draft()
        try:
            check_plan(steps, agents=types, max_steps=planning.max_steps, max_depth=planning.max_depth)
        except InvalidPlan as error:
            self._refuse(attempt, str(error), ENUMERATED)
            return _Draft()
        return _Draft(steps, ENUMERATED)

    def _refuse(self, attempt: Attempt, fault: str, model: str) -> None:
        """Say in the audit why a request is answered without steps although somebody wrote a plan for it."""
        self._deps.audit.report(self._event(attempt, Action.PLAN_REFUSED, reason=fault, model=model))

    def _types(self) -> list[str]:
        """Return the agent types that do steps: they answer, and do not plan themselves."""
        agents = self._deps.settings.agents
        return [agent.type for agent in agents if not agent.planning and agent.type != HUMAN_ESCALATION]

    def _permits(self, attempt: Attempt, agent_type: str) -> bool:
        try:
            self._deps.gate.allow(attempt.grant, Act.AGENT_INVOKE, agent_type)
        except Denied:
            return False
        return True

    async def _send(self, attempt: Attempt, gathered: Gathered, planning: PlanSettings) -> bool:
        """Set off the steps that have no result yet; tell whether the request is parked for them."""
        deps, now = self._deps, self._deps.now().timestamp()
        branches = [
            Branch(self._row(attempt, step, gathered.digest), step.id, step.depends_on, is_vital(step))
            for step in gathered.pending
        ]
        ready = await deps.register.fan_out(
            attempt.ref,
            attempt.id,
            branches,
            steps=[step.id for step in gathered.plan.steps],
            ended=list(gathered.results),
            due=now + deps.settings.leases.unpublished_seconds,
            look=now + planning.look_seconds,
        )
        if ready is None:
            return False
        deps.heartbeat.release(attempt.id)
        deps.finisher.passed("fan_out")
        for ref in ready:
            # If this process dies here, the sweeper publishes the others.
            await publish_waiting(ref, deps.register, deps.relay, now=now)
            deps.finisher.passed("step")
        return True

    def _row(self, attempt: Attempt, step: PlanStep, digest: str) -> Row:
        parent = attempt.message
        message = parent.changed(
            step=step.id,
            callback=None,
            agent_type=step.agent,
            fallback_from=None,
            fallback_code=None,
            body=Body(encoding="plan"),
            session_id=None,
            grant=self._grant(attempt, step, digest),
        )
        return Row(
            tenant=message.tenant,
            id=row_id_of(message),
            digest=message.digest,
            stage=Stage.WORK,
            revision=message.revision,
            queue=keys.queue(self._deps.place(step.agent), message.priority),
            message=message.to_json(),
            accepted_at=message.accepted_at.timestamp(),
            recorded=True,
            deadline=message.deadline.timestamp() if message.deadline else None,
        )

    def _grant(self, attempt: Attempt, step: PlanStep, digest: str) -> str | None:
        agents = (step.agent, *fallbacks(self._deps.settings.agents, step))
        return self._deps.gate.narrow(attempt.grant, plan=digest, step=step.id, agents=agents)


def fallbacks(agents: tuple[AgentSettings, ...], step: PlanStep) -> tuple[str, ...]:
    """Return the agent type that does ``step`` when its own cannot; none where the request falls back instead."""
    if step.on_failure is not OnFailure.FALL_BACK:
        return ()
    types = {agent.type: agent for agent in agents}
    own = types.get(step.agent)
    other = types.get(own.fallback or "") if own else None
    return (other.type,) if other and other.type != HUMAN_ESCALATION and not other.planning else ()


def _read(answer: AgentAnswer, planning: PlanSettings, types: list[str]) -> tuple[tuple[PlanStep, ...], str]:
    """Return the steps that a model wrote, and what is wrong with them. No steps at all are no fault."""
    try:
        steps = read_draft(answer.output)
        if steps:
            check_plan(steps, agents=types, max_steps=planning.max_steps, max_depth=planning.max_depth)
    except InvalidPlan as error:
        return (), str(error)
    return steps, ""

"""What has become of a plan: its steps' results, the text that each step is given, and what they come to together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from tasks.access.cuts import redacted_start
from tasks.contracts.message import Message
from tasks.contracts.plan import OnFailure, Plan, PlanStep
from tasks.contracts.result import AgentInfo, Result, Status, Step, own_usage, total
from tasks.settings import Settings
from tasks.stores.plans import PlanStore
from tasks.stores.results import ResultStore

_MOST_GIVEN: Final = 12_000
"""Characters of the outputs of other steps that a step, or the final answer, is given."""
MAX_DETAIL: Final = 300
"""Characters of what a result says of each step and tool call."""


class Gathered(Struct, frozen=True):
    """A plan, the SHA-256 of its object, and the results of those of its steps that have ended, by their ids."""

    plan: Plan
    digest: str
    results: Mapping[str, Result]

    @property
    def pending(self) -> list[PlanStep]:
        """Return the steps without a result."""
        return [step for step in self.plan.steps if step.id not in self.results]

    @property
    def fatal(self) -> PlanStep | None:
        """Return the first step whose failure is that of the plan, or None."""
        return next((step for step in self.plan.steps if is_vital(step) and self.has_failed(step.id)), None)

    def has_failed(self, step_id: str) -> bool:
        """Tell whether the step has ended without an answer. What a person is to answer has none yet."""
        result = self.results.get(step_id)
        return result is not None and result.status is not Status.SUCCEEDED


def is_vital(step: PlanStep) -> bool:
    """Tell whether the plan fails with this step."""
    return step.on_failure is not OnFailure.SKIP


async def gather(
    plans: PlanStore, results: ResultStore, tenant: str, request_id: str, revision: int
) -> Gathered | None:
    """Return what has become of the plan of a request; None where it has none."""
    stored = await plans.get(tenant, request_id, revision)
    if stored is None:
        return None
    plan = stored.plan
    found = await asyncio.gather(*(results.get(tenant, request_id, revision, step.id) for step in plan.steps))
    ended = {step.id: result for step, result in zip(plan.steps, found, strict=True) if result}
    return Gathered(plan, stored.digest, ended)


def may_have_plan(settings: Settings, message: Message) -> bool:
    """Tell whether the request of ``message`` may have a plan: it is, or was, with an agent type that plans."""
    types = (message.agent_type, message.fallback_from)
    return message.step is None and any(agent.planning and agent.type in types for agent in settings.agents)


async def with_tree(result: Result, plans: PlanStore, results: ResultStore, redact: Callable[[str], str]) -> Result:
    """Return ``result`` with the steps of the request's plan, where it has one."""
    gathered = await gather(plans, results, result.tenant, result.request_id, result.revision)
    return joined(result, gathered, redact) if gathered else result


def joined(result: Result, gathered: Gathered, redact: Callable[[str], str]) -> Result:
    """Return ``result`` with the tree of the plan's steps before its own, and with what all of them used."""
    steps = tree(gathered, redact)
    usage = total([own_usage(result), gathered.plan.usage, *(step.usage for step in steps if step.usage)])
    return result.changed(steps=(*steps, *result.steps), usage=usage)


def tree(gathered: Gathered, redact: Callable[[str], str]) -> tuple[Step, ...]:
    """Return the plan's steps as a result shows them."""
    return tuple(_node(step, gathered.results.get(step.id), redact) for step in gathered.plan.steps)


def _node(step: PlanStep, result: Result | None, redact: Callable[[str], str]) -> Step:
    node = Step(
        name=step.id,
        detail=redacted_start(step.instruction, MAX_DETAIL, redact),
        ok=result is not None and result.status is Status.SUCCEEDED,
        agent=AgentInfo(type=step.agent, model=""),
        depends_on=step.depends_on,
        steps=result.steps if result else (),
    )
    if result is None:
        return node
    return node.changed(
        agent=result.agent or node.agent,
        status=result.status,
        error=result.error,
        started_at=result.timings.started_at,
        finished_at=result.timings.finished_at,
        milliseconds=result.timings.agent_ms,
        usage=result.usage,
    )


def text_for(step: PlanStep, results: Mapping[str, Result]) -> str:
    """Return what the agent of ``step`` is given: its instruction, and what the steps that it depends on found."""
    if not step.depends_on:
        return step.instruction
    return f"{step.instruction}\n\nWhat earlier steps found:\n{_found(step.depends_on, results)}"


def text_for_answer(asked: str, gathered: Gathered) -> str:
    """Return what the planner's model is given to write the final answer from."""
    done = "\n".join(f"[{step.id}] {step.instruction}" for step in gathered.plan.steps)
    found = _found([step.id for step in gathered.plan.steps], gathered.results)
    return f"The request:\n{asked}\n\nThe steps:\n{done}\n\nWhat they found:\n{found}"


def composed(gathered: Gathered) -> str:
    """Return the final answer without a model: each step's instruction and what it found, in the order of the plan."""
    share = _MOST_GIVEN // len(gathered.plan.steps)
    parts = (
        f"{number}. {_first_line(step.instruction)}\n{_output(gathered.results.get(step.id), share)}"
        for number, step in enumerate(gathered.plan.steps, 1)
    )
    return "\n\n".join(parts)


def _found(steps: Sequence[str], results: Mapping[str, Result]) -> str:
    share = _MOST_GIVEN // len(steps)
    return "\n\n".join(f"[{step}]\n{_output(results.get(step), share)}" for step in steps)


def _output(result: Result | None, most: int) -> str:
    if result is None or result.status is not Status.SUCCEEDED:
        why = result.error.message if result and result.error else (result.status.value if result else "it did not run")
        return f"(no answer: {why[:MAX_DETAIL]})"
    return result.output if len(result.output) <= most else f"{result.output[:most]}…"


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= MAX_DETAIL else f"{line[:MAX_DETAIL]}…"

"""A plan: the steps that a request is split into, who does each, and what each needs from others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from tasks.contracts.base import SCHEMA_VERSION, Contract, Label, UtcDatetime, always, to_utc
from tasks.contracts.result import Usage
from tasks.errors import InvalidPlan

MAX_INSTRUCTION: Final = 4000
"""Characters of what a step is told to do."""

StepId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,32}\Z")]


class OnFailure(StrEnum):
    """What becomes of the plan when a step has no answer.

    ``FAIL``: the request fails. ``SKIP``: the others go on without it. ``FALL_BACK``: the fallback of the step's agent
    type does it; where that cannot, the request goes to the planner's own fallback.
    """

    FAIL = "fail"
    SKIP = "skip"
    FALL_BACK = "fall_back"


class PlanStep(Contract, frozen=True, kw_only=True):
    """One step. ``depends_on`` are ids of other steps, whose outputs it is given."""

    id: StepId
    agent: Label
    instruction: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_INSTRUCTION)]
    depends_on: tuple[StepId, ...] = always(())
    on_failure: OnFailure = always(OnFailure.FAIL)


class Plan(Contract, frozen=True, kw_only=True):
    """The plan of one revision of a request, written once, before its first step is published.

    ``model`` wrote it, at the price of ``usage`` and ``milliseconds``. ``attachments`` are those of the request.
    """

    schema_version: str = always(SCHEMA_VERSION)
    tenant: str
    request_id: str
    revision: int = always(1)
    started_at: UtcDatetime
    model: str
    usage: Usage = always(Usage())
    milliseconds: float = always(0.0)
    attachments: tuple[str, ...] = always(())
    steps: tuple[PlanStep, ...]

    def __post_init__(self) -> None:
        to_utc(self, "started_at")

    def step(self, step_id: str) -> PlanStep | None:
        """Return the step with this id, or None."""
        return next((step for step in self.steps if step.id == step_id), None)


def check_plan(steps: Sequence[PlanStep], *, agents: Collection[str], max_steps: int, max_depth: int) -> None:
    """Check that ``steps`` can be run by ``agents``, the agent types that may do steps.

    ``max_depth`` bounds the steps in a chain in which each needs the one before.

    Raises:
        InvalidPlan: they cannot; the message names each fault and its step.
    """
    faults = [*_faults(steps, agents, max_steps)]
    if not faults:
        depth = depth_of(steps)
        if depth is None:
            faults = ["steps: depend on each other in a circle"]
        elif depth > max_depth:
            faults = [f"steps: {depth} in a row, each of which needs the one before; the limit is {max_depth}"]
    if faults:
        raise InvalidPlan("; ".join(faults))


def depth_of(steps: Sequence[PlanStep]) -> int | None:
    """Return how many steps the longest chain has, None where the chain is a circle."""
    depths: dict[str, int] = {}
    left = list(steps)
    while left:
        ready = [step for step in left if all(need in depths for need in step.depends_on)]
        if not ready:
            return None
        for step in ready:
            depths[step.id] = 1 + max((depths[need] for need in step.depends_on), default=0)
        left = [step for step in left if step.id not in depths]
    return max(depths.values(), default=0)


def _faults(steps: Sequence[PlanStep], agents: Collection[str], max_steps: int) -> Iterator[str]:
    if not steps:
        yield "steps: there are none"
    if len(steps) > max_steps:
        yield f"steps: {len(steps)}, the limit is {max_steps}"
    known = Counter(step.id for step in steps)
    if twice := sorted(name for name, count in known.items() if count > 1):
        yield f"steps: more than one has the id {', '.join(twice)}"
    for step in steps:
        if step.agent not in agents:
            yield f"step {step.id}: agent: {step.agent!r} does no steps here; name one of {', '.join(sorted(agents))}"
        if strange := sorted(set(step.depends_on) - known.keys()):
            yield f"step {step.id}: depends_on: no step has the id {', '.join(strange)}"

"""How far a request has come, told step by step: those of its own way, and those of its plan."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final, NamedTuple

from tasks import keys
from tasks.contracts.plan import Plan
from tasks.contracts.result import Result
from tasks.contracts.row import Row, Stage
from tasks.stores.plans import PlanStore
from tasks.stores.register import Register
from tasks.stores.results import ResultStore

STARTED: Final = "step.started"
FINISHED: Final = "step.finished"
_RUNNING: Final = "running"


class Standing(NamedTuple):
    """Where a request stands: its row while it is open, its result once it has ended."""

    row: Row | None
    result: Result | None

    @property
    def status(self) -> str:
        """Return the result's status, or ``accepted``, ``routed``, ``running``."""
        if self.result is not None:
            return self.result.status.value
        return _name(self.row) if self.row else "accepted"


class PlanStepProgress(NamedTuple):
    """A step of a request's plan, who does it, and how it stands: ``running``, or its result's status."""

    id: str
    agent: str
    status: str


class Progress(NamedTuple):
    """What was reached, and when: ``accepted``, ``routed``, ``running``, ``finished``, which has the result.

    Between the last two ``step.started`` and ``step.finished``, which have the ``step``.
    """

    name: str
    time: datetime
    result: Result | None = None
    step: PlanStepProgress | None = None


class Follower:
    """Tells of one request what is new since it was asked last. Who looks late is told all the same, by the results."""

    def __init__(self, register: Register, results: ResultStore, plans: PlanStore) -> None:
        self._register = register
        self._results = results
        self._plans = plans
        self._plan: Plan | None = None
        self._told: set[tuple[str, str]] = set()

    async def news(self, standing: Standing, now: datetime) -> list[Progress]:
        """Return what was reached since the last call, in order."""
        own = _own(standing, now)
        steps = _of_result(standing.result) if standing.result else await self._of_plan(standing.row, now)
        last = [progress for progress in own if progress.result]
        found = [*own[: len(own) - len(last)], *steps, *last]
        return [progress for progress in found if self._is_new(progress)]

    def _is_new(self, progress: Progress) -> bool:
        key = progress.name, progress.step.id if progress.step else ""
        is_new = key not in self._told
        self._told.add(key)
        return is_new

    async def _of_plan(self, row: Row | None, now: datetime) -> list[Progress]:
        """Return what the register and the results say of the steps that have not ended as far as is known."""
        if row is None or not row.steps:
            return []
        if self._plan is None:
            stored = await self._plans.get(row.tenant, row.id, row.revision)
            self._plan = stored.plan if stored else None
        open_ = [step for step in self._plan.steps if (FINISHED, step.id) not in self._told] if self._plan else []
        found = await asyncio.gather(*(self._of_step(row, step.id, step.agent, now) for step in open_))
        return [progress for each in found for progress in each]

    async def _of_step(self, parent: Row, step: str, agent: str, now: datetime) -> list[Progress]:
        row = await self._register.get(keys.ref(parent.tenant, parent.id, parent.revision, step))
        if row is not None:
            return [Progress(STARTED, now, step=PlanStepProgress(step, agent, _RUNNING))] if row.holder else []
        result = await self._results.get(parent.tenant, parent.id, parent.revision, step)
        if result is None:
            return []
        by = result.agent.type if result.agent else agent
        times = result.timings
        return _passed(step, by, result.status.value, times.started_at, times.finished_at)


def _of_result(result: Result) -> list[Progress]:
    """Return the steps of the plan of a request that has ended."""
    return [
        progress
        for step in result.steps
        if step.agent and step.status
        for progress in _passed(step.name, step.agent.type, step.status.value, step.started_at, step.finished_at)
    ]


def _passed(
    step: str, agent: str, status: str, started_at: datetime | None, finished_at: datetime | None
) -> list[Progress]:
    begun = [Progress(STARTED, started_at, step=PlanStepProgress(step, agent, _RUNNING))] if started_at else []
    ended = [Progress(FINISHED, finished_at, step=PlanStepProgress(step, agent, status))] if finished_at else []
    return [*begun, *ended]


def _name(row: Row) -> str:
    if row.stage is Stage.WORK and (row.holder or row.steps):
        return "running"
    return "routed" if row.stage is Stage.WORK else "accepted"


def _own(standing: Standing, now: datetime) -> list[Progress]:
    """Return what the request itself is known to have reached, in order."""
    if standing.result is not None:
        timings = standing.result.timings
        times = [
            ("accepted", timings.accepted_at),
            ("routed", timings.routed_at),
            ("running", timings.started_at),
        ]
        steps = [Progress(name, time) for name, time in times if time is not None]
        return [*steps, Progress("finished", timings.finished_at, standing.result)]
    if standing.row is None:
        return []
    accepted = Progress("accepted", datetime.fromtimestamp(standing.row.accepted_at, UTC))
    reached = {"accepted": (), "routed": ("routed",), "running": ("routed", "running")}[_name(standing.row)]
    return [accepted, *(Progress(name, now) for name in reached)]

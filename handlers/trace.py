"""Where a request stands, step by step: from its result where there is one, else from the register and the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from tasks import keys
from tasks.contracts.base import Contract, UtcDatetime, always, parse_versioned
from tasks.contracts.message import Message
from tasks.contracts.result import AgentInfo, ErrorInfo, IntentInfo, Result, Step, Usage
from tasks.contracts.row import Row
from tasks.errors import NotFound
from tasks.join import gather, tree
from tasks.stores.plans import PlanStore
from tasks.stores.register import Register
from tasks.stores.results import ResultStore


class TracedStep(Contract, frozen=True, kw_only=True):
    """One step of a plan. ``state`` is a result's status, else the register's word, else ``not begun``.

    ``calls`` are the tool calls of its agent.
    """

    name: str
    state: str
    instruction: str
    depends_on: tuple[str, ...]
    agent: AgentInfo | None = None
    attempts: int | None = None
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime | None = None
    milliseconds: float | None = None
    usage: Usage | None = None
    error: ErrorInfo | None = None
    calls: tuple[Step, ...] = always(())


class Trace(Contract, frozen=True, kw_only=True):
    """One revision of a request. ``steps`` are those of its plan, ``calls`` the tool calls of its own agent."""

    request_id: str
    tenant: str
    revision: int
    state: str
    queue: str | None = None
    attempts: int | None = None
    intent: IntentInfo | None = None
    agent: AgentInfo | None = None
    agent_type: str | None = None
    accepted_at: UtcDatetime | None = None
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime | None = None
    usage: Usage | None = None
    error: ErrorInfo | None = None
    planned_by: str | None = None
    steps: tuple[TracedStep, ...] = always(())
    calls: tuple[Step, ...] = always(())

    @property
    def seconds(self) -> float | None:
        """Return the seconds from acceptance to the end, None while it is open."""
        if self.accepted_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.accepted_at).total_seconds()


class Tracer(Struct, frozen=True):
    """Reads what is needed of one request, and writes nothing."""

    register: Register
    results: ResultStore
    plans: PlanStore
    redact: Callable[[str], str]

    async def trace(self, tenant: str, request_id: str, revision: int | None = None) -> Trace:
        """Return where a revision stands, by default the newest.

        Raises:
            NotFound: nobody has heard of it.
        """
        row = await self.register.get(keys.ref(tenant, request_id))
        if row and revision not in (None, row.revision):
            row = None
        number, result = await self._newest(tenant, request_id, row.revision if row else 1)
        if revision is not None:
            number, result = revision, await self.results.get(tenant, request_id, revision)
        if row is None and result is None:
            raise NotFound(f"no request {request_id!r} of tenant {tenant!r}; --tenant names another")
        steps, planned_by = await self._steps(tenant, request_id, number)
        head = _ended(result) if result else _open(row)
        return Trace(
            request_id=request_id,
            tenant=tenant,
            revision=number,
            queue=row.queue if row and result is None else None,
            planned_by=planned_by,
            steps=steps,
            **head,
        )

    async def _newest(self, tenant: str, request_id: str, revision: int) -> tuple[int, Result | None]:
        """Return the number and the result of the last revision from ``revision`` on."""
        found = await self.results.get(tenant, request_id, revision)
        while found and (later := await self.results.get(tenant, request_id, revision + 1)):
            revision, found = revision + 1, later
        return revision, found

    async def _steps(self, tenant: str, request_id: str, revision: int) -> tuple[tuple[TracedStep, ...], str | None]:
        gathered = await gather(self.plans, self.results, tenant, request_id, revision)
        if gathered is None:
            return (), None
        refs = [keys.ref(tenant, request_id, revision, step.id) for step in gathered.plan.steps]
        rows = await asyncio.gather(*map(self.register.get, refs))
        nodes = tree(gathered, self.redact)
        return tuple(map(_step, nodes, rows)), gathered.plan.model


def _ended(result: Result) -> dict[str, Any]:
    times = result.timings
    return {
        "state": result.status.value,
        "intent": result.intent,
        "agent": result.agent,
        "agent_type": result.agent.type if result.agent else None,
        "accepted_at": times.accepted_at,
        "started_at": times.started_at,
        "finished_at": times.finished_at,
        "usage": result.usage,
        "error": result.error,
        "calls": tuple(step for step in result.steps if step.agent is None),
    }


def _open(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {"state": "unknown"}
    message = parse_versioned(Message, row.message)
    return {
        "state": row.state,
        "attempts": row.attempts,
        "intent": message.intent,
        "agent_type": message.agent_type,
        "accepted_at": message.accepted_at,
    }


def _step(node: Step, row: Row | None) -> TracedStep:
    state = node.status.value if node.status else (row.state if row else "not begun")
    return TracedStep(
        name=node.name,
        state=state,
        instruction=node.detail,
        depends_on=node.depends_on or (),
        agent=node.agent,
        attempts=row.attempts if row and row.attempts else None,
        started_at=node.started_at,
        finished_at=node.finished_at,
        milliseconds=node.milliseconds,
        usage=node.usage,
        error=node.error,
        calls=node.steps or (),
    )

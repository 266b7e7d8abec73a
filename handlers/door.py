"""The one function through which every request comes in. A door is only a translation in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from tasks import keys
from tasks.access.gate import Gate
from tasks.audit.stream import AuditStream
from tasks.contracts.audit import Action, Event
from tasks.contracts.message import Message
from tasks.contracts.request import Request
from tasks.contracts.row import Row, Stage
from tasks.contracts.words import Intent
from tasks.errors import Conflict, InvalidInput
from tasks.settings import Settings
from tasks.stores.bodies import BodyStore
from tasks.stores.register import Opened, Register
from tasks.stores.relay import Relay
from tasks.stores.results import ResultStore

_AUDIT_SECONDS: Final = 30.0
"""How long a caller waits for the audit. After that the sweeper brings the request onto its queue."""


class Acceptance(StrEnum):
    """``NEW``: accepted now. ``SAME``: this very request was accepted before; nothing was done."""

    NEW = "new"
    SAME = "same"


@dataclass(frozen=True)
class Accepted:
    """A request that will have exactly one result for its revision."""

    id: str
    tenant: str
    acceptance: Acceptance


class Door:
    """Accepts requests. ``name`` is who it stands for in the audit."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        gate: Gate,
        audit: AuditStream,
        register: Register,
        relay: Relay,
        bodies: BodyStore,
        results: ResultStore,
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._name = name
        self._gate = gate
        self._audit = audit
        self._register = register
        self._relay = relay
        self._bodies = bodies
        self._results = results
        self._now = now

    async def accept(self, requests: Sequence[Request], *, principal: str) -> list[Accepted | Conflict]:
        """Accept ``requests`` for ``principal``; one outcome for each, in order. A conflict holds up no other.

        When this returns, what is :class:`Accepted` is durable, recorded and on its queue.
        """
        outcomes, admitted = await self.admit(requests, principal=principal)
        if admitted:
            await self.announce(admitted, principal=principal)
        return outcomes

    async def admit(
        self, requests: Sequence[Request], *, principal: str
    ) -> tuple[list[Accepted | Conflict], list[Row]]:
        """Write ``requests`` into the register; return the outcomes, and the rows to :meth:`announce`.

        Raises :class:`InvalidInput` for the first one whose intent has no route; then none is accepted.

        When this returns, what is :class:`Accepted` is durable: if nobody announces it, the sweeper does. If the
        process dies earlier, a request is either not in the register, or the sweeper brings it onto its queue.
        """
        for request in requests:
            self._check_intent(request)
        # Before anything is written: what is open may be begun at any time.
        outcomes: list[Accepted | Conflict | None] = [*await self._pasts(requests)]
        fresh = [place for place, past in enumerate(outcomes) if past is None]
        rows = [await self._row(requests[place], principal) for place in fresh]
        due = self._now().timestamp() + self._settings.leases.unpublished_seconds
        opened = await self._register.open(rows, due=due) if rows else []
        created = []
        for place, row, state in zip(fresh, rows, opened, strict=True):
            outcomes[place] = _outcome(row, state)
            if state is Opened.CREATED:
                created.append(row)
        return [outcome for outcome in outcomes if outcome is not None], created

    def _check_intent(self, request: Request) -> None:
        known = self._settings.routing.intents
        if request.intent not in (None, Intent.OUT_OF_SCOPE, *known):
            raise InvalidInput(
                f"request {request.id}: intent: {request.intent!r} has no route; "
                f"name one of {', '.join(known)}, or add routing.intents.{request.intent}"
            )

    async def announce(self, rows: Sequence[Row], *, principal: str) -> None:
        """Record admitted rows in the audit, then publish them."""
        await self._audit.commit([self._event(row, principal) for row in rows], timeout=_AUDIT_SECONDS)
        await self._relay.publish(rows, now=self._now().timestamp())

    async def _pasts(self, requests: Sequence[Request]) -> list[Accepted | Conflict | None]:
        named = [request for request in requests if "id" in request.model_fields_set]
        pasts = iter(await asyncio.gather(*map(self._finished_before, named)))
        return [next(pasts) if "id" in request.model_fields_set else None for request in requests]

    async def _finished_before(self, request: Request) -> Accepted | Conflict | None:
        """Look for a result under a producer's own id: the register forgets a finished request after a while."""
        result = await self._results.get(request.tenant, request.id)
        if result is None:
            return None
        if result.request_digest == request.digest():
            return Accepted(request.id, request.tenant, Acceptance.SAME)
        return _conflict(request.id)

    async def _row(self, request: Request, principal: str) -> Row:
        digest = request.digest()
        now = self._now()
        message = Message(
            id=request.id,
            tenant=request.tenant,
            digest=digest,
            grant=self._gate.mint(request, principal),
            body=await self._bodies.pack(request, digest),
            priority=request.priority,
            session_id=request.session_id,
            deadline=request.deadline,
            traceparent=request.traceparent,
            accepted_at=now,
        )
        return Row(
            tenant=request.tenant,
            id=request.id,
            digest=digest,
            stage=Stage.ROUTE,
            queue=keys.queue(keys.INTENT_POOL, request.priority),
            message=message.to_json(),
            accepted_at=now.timestamp(),
            deadline=request.deadline.timestamp() if request.deadline else None,
            session=request.session_id or "",
        )

    def _event(self, row: Row, principal: str) -> Event:
        return Event(
            action=Action.REQUEST_ACCEPTED,
            actor=principal,
            tenant=row.tenant,
            request_id=row.id,
            resource=row.queue,
            details={"digest": row.digest, "door": self._name},
        )


def _outcome(row: Row, opened: Opened) -> Accepted | Conflict:
    if opened is Opened.CONFLICT:
        return _conflict(row.id)
    return Accepted(row.id, row.tenant, Acceptance.NEW if opened is Opened.CREATED else Acceptance.SAME)


def _conflict(request_id: str) -> Conflict:
    return Conflict(f"id: {request_id!r} is in use for a request with another body; choose another id")

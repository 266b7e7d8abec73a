"""The one function through which every request comes in. A door is only a translation in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from tasks import keys
from tasks.access.gate import Caller, Gate
from tasks.access.quotas import day_of, exceeded, limits
from tasks.audit.stream import AuditStream
from tasks.contracts.audit import Action, Decision, Event
from tasks.contracts.message import Message
from tasks.contracts.request import Request
from tasks.contracts.row import Row, Stage
from tasks.contracts.words import Intent
from tasks.errors import Conflict, Denied, InvalidInput, QuotaExceeded, ToolRefused
from tasks.settings import Settings
from tasks.stores.bodies import BodyStore
from tasks.stores.register import Opened, Register
from tasks.stores.relay import Relay
from tasks.stores.results import ResultStore

_AUDIT_SECONDS: Final = 30.0
"""How long a caller waits for the audit. After that the sweeper brings the request onto its queue."""


_OVER: Final = frozenset({Opened.FULL, Opened.SPENT})


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


Refusal = Conflict | Denied | QuotaExceeded
"""Why a valid request was not accepted. It holds up no other."""
Outcome = Accepted | Refusal


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

    async def accept(self, requests: Sequence[Request], *, caller: Caller) -> list[Outcome]:
        """Accept ``requests`` for ``caller``; one outcome for each, in order. A refusal holds up no other.

        When this returns, what is :class:`Accepted` is durable, recorded and on its queue.
        """
        outcomes, admitted = await self.admit(requests, caller=caller)
        if admitted:
            await self.announce(admitted, caller=caller)
        return outcomes

    async def admit(self, requests: Sequence[Request], *, caller: Caller) -> tuple[list[Outcome], list[Row]]:
        """Write ``requests`` into the register; return the outcomes, and the rows to :meth:`announce`.

        Raises :class:`InvalidInput` for the first one whose intent has no route, or that names an attachment which is
        not the tenant's; then none is accepted. What the caller may not ask for is :class:`Denied`, and so recorded,
        before anything else is looked at.

        When this returns, what is :class:`Accepted` is durable: if nobody announces it, the sweeper does. If the
        process dies earlier, a request is either not in the register, or the sweeper brings it onto its queue.
        """
        for request in requests:
            self._check_intent(request)
            self._check_callback(request)
            _check_attachments(request)
        outcomes: list[Outcome | None] = [*await self._denials(requests, caller)]
        welcome = [place for place, denied in enumerate(outcomes) if denied is None]
        # Before anything is written: what is open may be begun at any time.
        for place, past in zip(welcome, await self._pasts([requests[place] for place in welcome]), strict=True):
            outcomes[place] = past
        fresh = [place for place, outcome in enumerate(outcomes) if outcome is None]
        rows = [await self._row(requests[place], caller) for place in fresh]
        due = self._now().timestamp() + self._settings.leases.unpublished_seconds
        opened = await self._open(rows, due) if rows else []
        created = []
        for place, row, state in zip(fresh, rows, opened, strict=True):
            outcomes[place] = self._outcome(row, state)
            if state in {Opened.CREATED, Opened.THROTTLED}:
                created.append(row.changed(throttled=state is Opened.THROTTLED))
        await self._record_overruns([row for row, state in zip(rows, opened, strict=True) if state in _OVER], caller)
        return [outcome for outcome in outcomes if outcome is not None], created

    async def _open(self, rows: Sequence[Row], due: float) -> list[Opened]:
        """Open ``rows`` within the quotas of their tenants."""
        quotas = self._settings.quotas
        chosen = [limits(quotas, row.tenant) for row in rows]
        return await self._register.open(rows, due=due, limits=chosen, day=day_of(self._now()))

    def _outcome(self, row: Row, opened: Opened) -> Outcome:
        if opened is Opened.CONFLICT:
            return _conflict(row.id)
        if opened in _OVER:
            return exceeded(self._settings.quotas, row.tenant, opened, self._now())
        is_new = opened in {Opened.CREATED, Opened.THROTTLED}
        return Accepted(row.id, row.tenant, Acceptance.NEW if is_new else Acceptance.SAME)

    async def _record_overruns(self, refused: Sequence[Row], caller: Caller) -> None:
        """Record what was refused for a quota: once for each tenant of a batch, or a flood would fill the audit too."""
        by_tenant: dict[str, list[Row]] = {}
        for row in refused:
            by_tenant.setdefault(row.tenant, []).append(row)
        events = [
            Event(
                action=Action.QUOTA_EXCEEDED,
                actor=caller.subject,
                tenant=tenant,
                request_id=rows[0].id,
                resource=rows[0].queue,
                decision=Decision.DENY,
                details={"door": self._name, "refused": len(rows)},
            )
            for tenant, rows in by_tenant.items()
        ]
        if events:
            await self._audit.commit(events, timeout=_AUDIT_SECONDS)

    def _check_intent(self, request: Request) -> None:
        known = self._settings.routing.intents
        if request.intent not in (None, Intent.OUT_OF_SCOPE, *known):
            raise InvalidInput(
                f"request {request.id}: intent: {request.intent!r} has no route; "
                f"name one of {', '.join(known)}, or add routing.intents.{request.intent}"
            )

    def _check_callback(self, request: Request) -> None:
        if request.callback is None:
            return
        from tasks.access.outbound import Wall

        if not self._settings.callbacks.secrets:
            raise InvalidInput(f"request {request.id}: callback: this deployment makes none: set callbacks.secrets")
        try:
            Wall(self._settings.callbacks).admit(str(request.callback))
        except ToolRefused as error:
            raise InvalidInput(f"request {request.id}: callback: {error}") from error

    async def announce(self, rows: Sequence[Row], *, caller: Caller) -> None:
        """Record admitted rows in the audit, then publish them."""
        await self._audit.commit([self._event(row, caller) for row in rows], timeout=_AUDIT_SECONDS)
        await self._relay.publish(rows, now=self._now().timestamp())

    async def _denials(self, requests: Sequence[Request], caller: Caller) -> list[Denied | None]:
        """Tell for each request why ``caller`` may not ask for it, once that is durable in the audit."""
        denials = [self._denial(request, caller) for request in requests]
        refused = [
            self._rejection(request, caller, denied)
            for request, denied in zip(requests, denials, strict=True)
            if denied is not None
        ]
        if refused:
            await self._audit.commit(refused, timeout=_AUDIT_SECONDS)
        return denials

    def _denial(self, request: Request, caller: Caller) -> Denied | None:
        try:
            self._gate.admit(request, caller)
        except Denied as denied:
            return denied
        return None

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

    async def _row(self, request: Request, caller: Caller) -> Row:
        digest = request.digest()
        now = self._now()
        message = Message(
            id=request.id,
            tenant=request.tenant,
            digest=digest,
            grant=self._gate.mint(request, caller),
            body=await self._bodies.pack(request, digest),
            priority=request.priority,
            session_id=request.session_id,
            deadline=request.deadline,
            callback=True if request.callback else None,
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

    def _rejection(self, request: Request, caller: Caller, denied: Denied) -> Event:
        return Event(
            action=Action.REQUEST_REJECTED,
            actor=caller.subject,
            tenant=request.tenant,
            request_id=request.id,
            resource=keys.queue(keys.INTENT_POOL, request.priority),
            decision=Decision.DENY,
            reason=str(denied),
            details={"digest": request.digest(), "door": self._name, "code": denied.code},
        )

    def _event(self, row: Row, caller: Caller) -> Event:
        return Event(
            action=Action.REQUEST_ACCEPTED,
            actor=caller.subject,
            tenant=row.tenant,
            request_id=row.id,
            resource=row.queue,
            details={"digest": row.digest, "door": self._name},
        )


def _check_attachments(request: Request) -> None:
    for number, key in enumerate(request.attachments):
        if not keys.is_attachment(request.tenant, key):
            prefix = keys.attachment_prefix(request.tenant)
            raise InvalidInput(f"request {request.id}: attachments.{number}: {key!r} does not lie under {prefix}")


def _conflict(request_id: str) -> Conflict:
    return Conflict(f"id: {request_id!r} is in use for a request with another body; choose another id")

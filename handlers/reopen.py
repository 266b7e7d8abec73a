"""Opens the next revision of a request that has ended: a door's action, with a grant of its own.

The operator acts, the subject stays: whoever asked is asked for again, with the same body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec import Struct

from handlers.acting import AUDIT_SECONDS, Acting
from tasks import keys
from tasks.contracts.audit import Action, Event
from tasks.contracts.message import Message
from tasks.contracts.row import Row, Stage
from tasks.errors import Conflict, ForgedMessage, IntegrityError, InvalidInput, NotReady
from tasks.stores.outbox import open_callback
from tasks.stores.register import Opened, Register
from tasks.stores.relay import Relay
from tasks.stores.results import ResultStore

_PAUSES: Final = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between looks whether the revision before has left the register, which it does right after its result."""


class Reopening(Struct, frozen=True):
    """A revision that may be opened, and the record of who opens it. ``row`` is None where it has its result."""

    id: str
    tenant: str
    revision: int
    row: Row | None
    event: Event


class Reopener:
    """Opens revisions. ``place`` says which pool gets work for an agent type."""

    def __init__(
        self,
        acting: Acting,
        *,
        register: Register,
        relay: Relay,
        results: ResultStore,
        unpublished_seconds: float,
        place: Callable[[str], str] = keys.agent_pool,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._acting = acting
        self._register = register
        self._relay = relay
        self._results = results
        self._unpublished_seconds = unpublished_seconds
        self._place = place
        self._sleep = sleep

    async def prepare(
        self, ended: Message, action: Action, resource: str, *, agent_type: str | None = None
    ) -> Reopening:
        """Return the revision after that of ``ended``, for ``agent_type`` or, without one, for the intent pool.

        Nothing is written yet. Whether the caller may do this is for whoever calls to ask.

        Raises:
            InvalidInput: that revision has not ended, is a step of a plan, or its deadline has passed.
            IntegrityError: ``ended`` is not what was granted.
            Denied: the caller's key may not sign for the subject.
        """
        acting, now, revision = self._acting, self._acting.now(), ended.revision + 1
        event = acting.event(action, ended.tenant, resource, request_id=ended.id, revision=revision)
        found = Reopening(ended.id, ended.tenant, revision, None, event)
        if ended.delivery:
            raise InvalidInput(f"{ended.id}: is a callback of revision {ended.revision}, and no request to open again")
        if ended.step is not None:
            raise InvalidInput(f"{ended.id}: a step of a plan cannot be opened again: open its request")
        if await self._results.get(ended.tenant, ended.id, ended.revision) is None:
            raise InvalidInput(f"{ended.id}: revision {ended.revision} has no result yet")
        if await self._results.get(ended.tenant, ended.id, revision) is not None:
            return found
        if ended.deadline is not None and ended.deadline <= now:
            raise InvalidInput(f"{ended.id}: its deadline {ended.deadline.isoformat()} has passed: nobody waits for it")
        try:
            grant = acting.gate.again(ended, acting.caller)
        except ForgedMessage as error:
            raise IntegrityError(str(error)) from error
        message = ended.changed(
            revision=revision,
            grant=grant,
            accepted_at=now,
            agent_type=agent_type,
            fallback_from=None,
            fallback_code=None,
            **({} if agent_type else {"intent": None, "routed_at": None, "classify_ms": None}),
        )
        return Reopening(ended.id, ended.tenant, revision, self._row(message), event)

    async def open(self, reopening: Reopening, **details: Any) -> bool:
        """Open the revision, once that is on record, and publish it; tell whether nobody had opened it before.

        ``details`` are for the record. When this returns it is durable: it ends in one result, as every request.

        Raises:
            NotReady: the revision before is still in the register; try again.
            Conflict: the id is in use for another body.
        """
        row = reopening.row
        if row is None:
            return False
        event = reopening.event.changed(details={**reopening.event.details, **details})
        await self._acting.audit.commit([event], timeout=AUDIT_SECONDS)
        opened = await self._opened(row)
        if opened is Opened.CONFLICT:
            raise Conflict(f"id: {row.id!r} is in use for a request with another body")
        if opened is not Opened.CREATED:
            return False
        # If this process dies here, the sweeper publishes it.
        await self._relay.publish([row], now=self._acting.now().timestamp())
        return True

    async def resend(self, callback: Message, resource: str, **details: Any) -> bool:
        """Send a ``callback`` that was given up once more, under its own ``webhook-id``, once that is on record.

        It opens no revision. Tell whether nobody has done so already. ``details`` are for the record.
        """
        acting, now = self._acting, self._acting.now().timestamp()
        facts = {"revision": callback.revision, "delivery": True, **details}
        await acting.record(Action.REQUEST_REDRIVEN, callback.tenant, resource, request_id=callback.id, **facts)
        row = await open_callback(callback, self._register, due=now + self._unpublished_seconds, again=True)
        if row is None:
            return False
        # If this process dies here, the sweeper publishes it.
        await self._relay.publish([row], now=now)
        return True

    async def _opened(self, row: Row) -> Opened:
        for pause in (*_PAUSES, None):
            due = self._acting.now().timestamp() + self._unpublished_seconds
            [opened] = await self._register.open([row], due=due)
            if opened is not Opened.UNFINISHED:
                return opened
            if pause is not None:
                await self._sleep(pause)
        raise NotReady(f"{row.id}: revision {row.revision - 1} has its result and is still being closed: try again")

    def _row(self, message: Message) -> Row:
        pool = self._place(message.agent_type) if message.agent_type else keys.INTENT_POOL
        return Row(
            tenant=message.tenant,
            id=message.id,
            digest=message.digest,
            stage=Stage.WORK if message.agent_type else Stage.ROUTE,
            revision=message.revision,
            queue=keys.queue(pool, message.priority),
            message=message.to_json(),
            accepted_at=message.accepted_at.timestamp(),
            recorded=True,
            deadline=message.deadline.timestamp() if message.deadline else None,
            session=message.session_id or "",
        )

"""What a caller may do with one request beside submitting it: ask where it stands, wait for its end, cancel it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any, Final

from handlers.acting import AUDIT_SECONDS, Acting
from handlers.opening import OpenDoor
from handlers.progress import Follower, Progress, Standing
from tasks import keys
from tasks.access.gate import Caller
from tasks.access.policy import Act
from tasks.access.redact import Redactor
from tasks.contracts.audit import Action
from tasks.contracts.base import parse_versioned
from tasks.contracts.message import Message
from tasks.contracts.result import ErrorInfo, Result, Status
from tasks.contracts.row import Row
from tasks.contracts.words import new_id
from tasks.errors import Conflict, ForgedMessage, NotFound, StoreError
from tasks.finish import Finisher, Outcome, make_finisher, unanswered
from tasks.join import may_have_plan, with_tree
from tasks.log import get_logger
from tasks.settings import Settings
from tasks.stores.plans import PlanStore
from tasks.stores.register import Register
from tasks.stores.results import ResultStore

log = get_logger()

CANCELLED: Final = "cancelled"
"""The error code of a request that somebody cancelled."""
_POLL_SECONDS: Final = (0.02, 0.05, 0.1, 0.2)


class Desk:
    """Answers for requests that a door accepted. ``acting`` says what a caller may do, and puts it on record."""

    def __init__(
        self,
        *,
        acting: Callable[[Caller], Acting],
        register: Register,
        results: ResultStore,
        plans: PlanStore,
        finisher: Finisher,
        settings: Settings,
        redact: Callable[[str], str],
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._acting = acting
        self._register = register
        self._results = results
        self._plans = plans
        self._finisher = finisher
        self._settings = settings
        self._redact = redact
        self._now = now
        self._sleep = sleep

    async def standing(self, tenant: str, request_id: str, *, caller: Caller) -> Standing:
        """Return where the request stands.

        Raises:
            Denied: ``caller`` may not read what ``tenant`` asked for.
            NotFound: there is no such request.
        """
        await self._acting(caller).permit(Act.REQUEST_READ, tenant)
        return await self._look(tenant, request_id)

    async def wait(self, tenant: str, request_id: str, seconds: float, *, caller: Caller) -> Standing:
        """Return where the request stands once it has ended, or after ``seconds``. Raises as :meth:`standing`."""
        await self._acting(caller).permit(Act.REQUEST_READ, tenant)
        found = await self._look(tenant, request_id)
        async for standing in self._watch(tenant, request_id, seconds):
            found = standing
        return found

    async def follow(self, tenant: str, request_id: str, seconds: float, *, caller: Caller) -> AsyncIterator[Progress]:
        """Yield each step as it is taken, those before this call too, until the end or for ``seconds``.

        A step that was over before it was looked for is told by the times in the result. Raises as :meth:`standing`.
        """
        await self._acting(caller).permit(Act.REQUEST_READ, tenant)
        follower = Follower(self._register, self._results, self._plans)
        async for standing in self._watch(tenant, request_id, seconds):
            for progress in await follower.news(standing, self._now()):
                yield progress

    async def cancel(self, tenant: str, request_id: str, *, caller: Caller) -> Result:
        """Create the result with status ``cancelled``; a worker that is at it notices with its next heartbeat.

        Cancelling what is cancelled returns the result that is there, and ends what was left undone.

        Raises:
            Denied: ``caller`` may not cancel what ``tenant`` asked for.
            NotFound: there is no such request.
            Conflict: it has ended otherwise.
            StoreError: it may or may not be cancelled; ask again.
        """
        await self._acting(caller).permit(Act.REQUEST_CANCEL, tenant)
        found = await self._look(tenant, request_id)
        result = found.result
        if found.row is not None and (result is None or result.status is Status.CANCELLED):
            message = self._message(found.row, caller)
            try:
                async with asyncio.timeout(AUDIT_SECONDS):
                    if result is None:
                        result = await self._end(message, caller)
                    else:
                        await self._finisher.close(message, result)
            except TimeoutError:
                raise StoreError(f"{request_id}: not cancelled within {AUDIT_SECONDS:g} s; ask again") from None
        if result is None or result.status is not Status.CANCELLED:
            ended = f" as {result.status.value}" if result else ""
            raise Conflict(f"{request_id}: has ended{ended}: there is nothing to cancel")
        return result

    async def _end(self, message: Message, caller: Caller) -> Result:
        error = ErrorInfo(code=CANCELLED, message=f"cancelled by {caller.subject}")
        result = unanswered(message, Status.CANCELLED, error, attempt=new_id(), now=self._now())
        if may_have_plan(self._settings, message):
            result = await with_tree(result, self._plans, self._results, self._redact)
        written = keys.result(message.tenant, message.id, message.revision)
        event = self._acting(caller).event(Action.REQUEST_CANCELLED, message.tenant, written, request_id=message.id)
        return await self._finisher.finish(Outcome(message, result, actor=caller.subject, events=[event]))

    def _message(self, row: Row, caller: Caller) -> Message:
        """Return what the register has for a request; raise :class:`NotFound` where no door wrote it."""
        message = parse_versioned(Message, row.message)
        fault = "" if (message.tenant, message.id) == (row.tenant, row.id) else "its row has another's message"
        try:
            self._acting(caller).gate.verify(message)
        except ForgedMessage as error:
            fault = str(error)
        if fault:
            log.warning("not cancelled", tenant=row.tenant, request_id=row.id, reason=fault)
            raise NotFound(f"no request {row.id!r} of tenant {row.tenant!r} that a door accepted")
        return message

    async def _look(self, tenant: str, request_id: str) -> Standing:
        # The row first: it is removed after the result was written, so one of them is always there.
        row = await self._register.get(keys.ref(tenant, request_id))
        if row is not None:
            result = await self._results.get(tenant, request_id, row.revision)
        else:
            result = await self._results.newest(tenant, request_id)
        if row is None and result is None:
            raise NotFound(f"no request {request_id!r} of tenant {tenant!r}")
        return Standing(row, result)

    async def _watch(self, tenant: str, request_id: str, seconds: float) -> AsyncIterator[Standing]:
        """Yield where the request stands, again and again, until it has ended or ``seconds`` are over."""
        pauses, pause = iter(_POLL_SECONDS), 0.0
        end = self._now().timestamp() + seconds
        while True:
            standing = await self._look(tenant, request_id)
            yield standing
            if standing.result is not None or self._now().timestamp() >= end:
                return
            pause = next(pauses, pause)
            await self._sleep(pause)


def make_desk(settings: Settings, opened: OpenDoor) -> Desk:
    """Return the desk of a door over real stores."""
    stores = opened.stores
    return Desk(
        acting=opened.acting,
        register=stores.register,
        results=stores.results,
        plans=stores.plans,
        finisher=make_finisher(settings, stores, opened.audit, opened.now),
        settings=settings,
        redact=Redactor.of(settings.auditing).text,
        now=opened.now,
    )

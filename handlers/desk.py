"""What a caller may do with one request beside submitting it: ask where it stands, wait for its end, cancel it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from handlers.acting import Acting
from tasks import keys
from tasks.access.gate import Caller
from tasks.access.policy import Act
from tasks.contracts.audit import Action
from tasks.contracts.base import parse_versioned
from tasks.contracts.message import Message
from tasks.contracts.result import ErrorInfo, Result, Status
from tasks.contracts.row import Row, Stage
from tasks.contracts.words import new_id
from tasks.errors import Conflict, NotFound
from tasks.finish import Finisher, Outcome, unanswered
from tasks.stores.register import Register
from tasks.stores.results import ResultStore

CANCELLED: Final = "cancelled"
"""The error code of a request that somebody cancelled."""
_POLL_SECONDS: Final = (0.02, 0.05, 0.1, 0.2)


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


class Progress(NamedTuple):
    """One step of a request: ``accepted``, ``routed``, ``running``, ``finished``; the last has the result."""

    name: str
    time: datetime
    result: Result | None = None


class Desk:
    """Answers for requests that a door accepted. ``acting`` says what a caller may do, and puts it on record."""

    def __init__(
        self,
        *,
        acting: Callable[[Caller], Acting],
        register: Register,
        results: ResultStore,
        finisher: Finisher,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._acting = acting
        self._register = register
        self._results = results
        self._finisher = finisher
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
        told: set[str] = set()
        async for standing in self._watch(tenant, request_id, seconds):
            for progress in _steps(standing, self._now()):
                if progress.name not in told:
                    told.add(progress.name)
                    yield progress

    async def cancel(self, tenant: str, request_id: str, *, caller: Caller) -> Result:
        """Create the result with status ``cancelled``; a worker that is at it notices with its next heartbeat.

        Cancelling what is cancelled returns the result that is there.

        Raises:
            Denied: ``caller`` may not cancel what ``tenant`` asked for.
            NotFound: there is no such request.
            Conflict: it has ended otherwise.
        """
        await self._acting(caller).permit(Act.REQUEST_CANCEL, tenant)
        found = await self._look(tenant, request_id)
        result = found.result
        if result is None and found.row is not None:
            result = await self._end(parse_versioned(Message, found.row.message), caller)
        if result is None or result.status is not Status.CANCELLED:
            ended = f" as {result.status.value}" if result else ""
            raise Conflict(f"{request_id}: has ended{ended}: there is nothing to cancel")
        return result

    async def _end(self, message: Message, caller: Caller) -> Result:
        error = ErrorInfo(code=CANCELLED, message=f"cancelled by {caller.subject}")
        result = unanswered(message, Status.CANCELLED, error, attempt=new_id(), now=self._now())
        written = keys.result(message.tenant, message.id, message.revision)
        event = self._acting(caller).event(Action.REQUEST_CANCELLED, message.tenant, written, request_id=message.id)
        return await self._finisher.finish(Outcome(message, result, actor=caller.subject, events=[event]))

    async def _look(self, tenant: str, request_id: str) -> Standing:
        # The row first: it is removed after the result was written, so one of them is always there.
        row = await self._register.get(keys.ref(tenant, request_id))
        result = await self._results.get(tenant, request_id, row.revision if row else 1)
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


def _name(row: Row) -> str:
    if row.holder and row.stage is Stage.WORK:
        return "running"
    return "routed" if row.stage is Stage.WORK else "accepted"


def _steps(standing: Standing, now: datetime) -> list[Progress]:
    """Return every step that is known to have been taken, in order."""
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

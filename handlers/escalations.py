"""What a person does with escalations: list, read, answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from random import random
from typing import Any, Final

from msgspec import Struct

from handlers.acting import Acting
from handlers.reopen import Reopener
from tasks import keys
from tasks.access.policy import Act
from tasks.agents.types import HUMAN_ESCALATION
from tasks.contracts.audit import Action
from tasks.contracts.base import sha256
from tasks.contracts.escalation import Escalation, EscalationAnswer
from tasks.contracts.result import Result, Status
from tasks.contracts.words import MAX_ANSWER_BYTES, check_text
from tasks.errors import Conflict, InvalidInput, NotFound, StoreError
from tasks.settings import Settings
from tasks.shards import Placement
from tasks.stores.bodies import BodyStore, to_request
from tasks.stores.connect import Stores
from tasks.stores.escalations import EscalationStore, EscalationSummary
from tasks.stores.results import ResultStore

_MOST_LOOKED_AT: Final = 5000
"""Escalations that one page looks at: a call must not list without end for the few that are open."""


class Shown(Struct, frozen=True):
    """An escalation, what was asked, the answer where there is one, and the newest result of the request."""

    escalation: Escalation
    text: str
    answer: EscalationAnswer | None
    newest: Result

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it. What the request travelled as, with its grant, is nobody's to see."""
        return {
            **{name: value for name, value in self.escalation.to_dict().items() if name != "message"},
            "text": self.text,
            "answer": self.answer.to_dict() if self.answer else None,
            "newest": {"revision": self.newest.revision, "status": self.newest.status.value},
        }


class Page(Struct, frozen=True):
    """Some of a tenant's escalations, by id; ``after`` names the one that the next page follows, None at the end."""

    items: list[EscalationSummary]
    after: tuple[str, int] | None = None


class Answered(Struct, frozen=True):
    """An answer that is on its way, or has its result: ``revision`` is that of the result. ``fresh``: by this call."""

    answer: EscalationAnswer
    revision: int
    fresh: bool


class Escalations:
    """The escalations that ``acting`` may answer."""

    def __init__(
        self,
        acting: Acting,
        *,
        escalations: EscalationStore,
        results: ResultStore,
        bodies: BodyStore,
        reopener: Reopener,
    ) -> None:
        self._acting = acting
        self._escalations = escalations
        self._results = results
        self._bodies = bodies
        self._reopener = reopener

    async def list(
        self, tenant: str, *, answered: bool | None = False, older_than: timedelta = timedelta()
    ) -> AsyncIterator[EscalationSummary]:
        """Yield the escalations of ``tenant`` that are open, with ``answered`` those that are not, with None all."""
        await self._acting.permit(Act.ESCALATION_ANSWER, tenant)
        before = self._acting.now() - older_than
        async for found in self._escalations.summaries(tenant):
            if answered in (None, found.answered_at is not None) and found.opened_at <= before:
                yield found

    async def page(
        self, tenant: str, *, answered: bool | None, after: tuple[str, int] | None = None, most: int
    ) -> Page:
        """Return up to ``most`` of those that :meth:`list` yields, fewer where too many others lie between them."""
        await self._acting.permit(Act.ESCALATION_ANSWER, tenant)
        found: list[EscalationSummary] = []
        looked = 0
        async for each in self._escalations.summaries(tenant, after=after):
            if len(found) == most or looked == _MOST_LOOKED_AT:
                return Page(found, after)
            looked, after = looked + 1, (each.request_id, each.revision)
            if answered in (None, each.answered_at is not None):
                found.append(each)
        return Page(found)

    async def show(self, tenant: str, request_id: str) -> Shown:
        """Return the newest escalation of a request; raises :class:`NotFound`."""
        await self._acting.permit(Act.ESCALATION_ANSWER, tenant)
        escalation, newest = await self._find(tenant, request_id)
        key = keys.escalation(tenant, request_id, escalation.revision)
        await self._acting.record(Action.ESCALATION_READ, tenant, key, request_id=request_id)
        body = await self._bodies.unpack(escalation.message)
        if body is None:
            raise StoreError(f"{request_id}: its body is not in object storage")
        answer = await self._escalations.answer(tenant, request_id, escalation.revision)
        return Shown(escalation, to_request(escalation.message, body).text, answer, newest)

    async def answer(self, tenant: str, request_id: str, text: str) -> Answered:
        """Answer the newest escalation of a request: its next revision gets ``text`` as its result.

        The first answer stands. The same one again is no error, and sends it on its way where that failed.

        Raises:
            NotFound: the request was not escalated.
            Conflict: somebody has given another answer.
            InvalidInput: the text is empty or too long, or the request's deadline has passed.
        """
        await self._acting.permit(Act.ESCALATION_ANSWER, tenant)
        try:
            check_text(text, most=MAX_ANSWER_BYTES)
        except ValueError as error:
            raise InvalidInput(f"answer: {error}") from error
        escalation, _ = await self._find(tenant, request_id)
        reopening = await self._reopener.prepare(
            escalation.message,
            Action.ESCALATION_ANSWERED,
            keys.escalation(tenant, request_id, escalation.revision),
            agent_type=HUMAN_ESCALATION,
        )
        mine = EscalationAnswer(
            request_id=request_id,
            revision=escalation.revision,
            tenant=tenant,
            text=text,
            answered_by=self._acting.caller.subject,
            answered_at=self._acting.now(),
        )
        standing = await self._escalations.create_answer(mine)
        # Also an answer of somebody else, who may have been stopped here.
        digest = sha256(standing.text.encode())
        fresh = await self._reopener.open(reopening, answered_by=standing.answered_by, answer_sha256=digest)
        if standing.text != text:
            raise Conflict(
                f"answer: {request_id!r} was answered by {standing.answered_by} at "
                f"{standing.answered_at.isoformat()} with another text; `sluice escalations show` has it"
            )
        return Answered(standing, reopening.revision, fresh)

    async def _find(self, tenant: str, request_id: str) -> tuple[Escalation, Result]:
        """Return the newest escalation of a request, answered or not, and its newest result."""
        newest = await self._results.newest(tenant, request_id)
        if newest is None:
            raise NotFound(f"no result of request {request_id!r} of tenant {tenant!r}")
        escalated = newest.revision if newest.status is Status.ESCALATED else newest.revision - 1
        found = await self._escalations.get(tenant, request_id, escalated) if escalated else None
        if found is None:
            raise NotFound(f"request {request_id!r} waits for nobody: it is {newest.status.value}")
        return found, newest


def make_escalations(acting: Acting, settings: Settings, stores: Stores) -> Escalations:
    """Return those that ``acting`` may answer, over real stores."""
    reopener = Reopener(
        acting,
        register=stores.register,
        relay=stores.relay,
        results=stores.results,
        unpublished_seconds=settings.leases.unpublished_seconds,
        place=Placement(settings, random),
    )
    return Escalations(
        acting, escalations=stores.escalations, results=stores.results, bodies=stores.bodies, reopener=reopener
    )

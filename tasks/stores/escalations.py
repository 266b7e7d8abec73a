"""Escalations in object storage: one for each revision that a person has to answer, and one answer to each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from msgspec import Struct

from tasks import keys
from tasks.contracts.base import parse_versioned
from tasks.contracts.escalation import Escalation, EscalationAnswer
from tasks.errors import AlreadyExists, NotFound
from tasks.stores.objects import ObjectStore


class EscalationSummary(Struct, frozen=True):
    """What a listing says of an escalation."""

    request_id: str
    revision: int
    opened_at: datetime
    answered_at: datetime | None = None


class EscalationStore:
    """The escalations of all tenants in one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def create(self, escalation: Escalation) -> None:
        """Write an escalation unless its revision has one."""
        key = keys.escalation(escalation.tenant, escalation.request_id, escalation.revision)
        try:
            await self._store.create(key, escalation.to_bytes())
        except AlreadyExists:
            return

    async def get(self, tenant: str, request_id: str, revision: int) -> Escalation | None:
        """Return an escalation, or None."""
        try:
            return parse_versioned(Escalation, await self._store.get(keys.escalation(tenant, request_id, revision)))
        except NotFound:
            return None

    async def create_answer(self, answer: EscalationAnswer) -> EscalationAnswer:
        """Write an answer unless there is one; return the one that is there now."""
        key = keys.escalation_answer(answer.tenant, answer.request_id, answer.revision)
        try:
            await self._store.create(key, answer.to_bytes())
        except AlreadyExists:
            return parse_versioned(EscalationAnswer, await self._store.get(key))
        return answer

    async def answer(self, tenant: str, request_id: str, revision: int) -> EscalationAnswer | None:
        """Return the answer to an escalation, or None while there is none."""
        try:
            data = await self._store.get(keys.escalation_answer(tenant, request_id, revision))
        except NotFound:
            return None
        return parse_versioned(EscalationAnswer, data)

    async def summaries(self, tenant: str, *, after: tuple[str, int] | None = None) -> AsyncIterator[EscalationSummary]:
        """Yield the escalations of a tenant, by id, from a listing: nothing is read.

        With ``after``, the request and revision of one of them, those that follow it.
        """
        answered: dict[tuple[str, int], datetime] = {}
        last = keys.escalation(tenant, *after) if after else ""
        async for found in self._store.scan(keys.escalations(tenant), after=last):
            request_id, revision, is_answer = keys.parse_escalation(found.key)
            if is_answer:
                # Its key sorts before that of what it answers.
                answered[request_id, revision] = found.modified
            else:
                answered_at = answered.pop((request_id, revision), None)
                yield EscalationSummary(request_id, revision, found.modified, answered_at)

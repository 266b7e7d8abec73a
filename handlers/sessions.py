"""What a person does with sessions: list, read, delete."""

from __future__ import annotations

from collections.abc import Callable

from handlers.acting import Acting
from tasks import keys
from tasks.access.policy import Act
from tasks.contracts.audit import Action
from tasks.contracts.session import SessionVersion
from tasks.errors import NotFound, SessionConflict
from tasks.stores.results import ResultStore
from tasks.stores.sessions import SessionStore, SessionSummary
from tasks.turns import settle

_TRIES = 8
"""Turns that may come in between while a session is being deleted."""


class Sessions:
    """The sessions that ``acting`` may read and delete."""

    def __init__(self, acting: Acting, *, sessions: SessionStore, results: ResultStore) -> None:
        self._acting = acting
        self._sessions = sessions
        self._results = results

    async def list(self, tenant: str, *, deleted: bool = False) -> list[SessionSummary]:
        """Return the sessions of ``tenant``, with ``deleted`` also those that begin anew with their next turn."""
        await self._acting.permit(Act.SESSION_READ, tenant)
        return [found for found in await self._sessions.summaries(tenant) if deleted or not found.deleted]

    async def show(self, tenant: str, session_id: str, version: int | None = None) -> SessionVersion:
        """Return a version of a session, by default the newest; raises :class:`NotFound`."""
        await self._acting.permit(Act.SESSION_READ, tenant)
        found = await self._newest(tenant, session_id) if version is None else None
        if version is not None:
            found = await self._sessions.get(tenant, session_id, version)
        if found is None:
            raise NotFound(f"no session {session_id!r} of tenant {tenant!r}")
        resource = keys.session(tenant, session_id, found.version)
        await self._acting.record(Action.SESSION_READ, tenant, resource)
        return found

    async def delete(self, tenant: str, session_id: str, *, told: Callable[[int, int], None]) -> SessionVersion:
        """Delete a session: its next turn begins anew, and what was said is taken out of its versions.

        An attempt that still runs on it must be done again, on the empty session. ``told`` hears how many versions of
        how many are empty. What was deleted before is gone through again: a deletion may have died half-way.

        Raises:
            NotFound: there is no such session.
            SessionConflict: turns came in between again and again.
        """
        await self._acting.permit(Act.SESSION_DELETE, tenant)
        deletion = await self._deleted(tenant, session_id)
        async for number in self._sessions.erase(deletion):
            told(number, deletion.version - 1)
        return deletion

    async def _deleted(self, tenant: str, session_id: str) -> SessionVersion:
        """Return the version that deletes the session; it is there."""
        for _ in range(_TRIES):
            latest = await self._newest(tenant, session_id)
            if latest is None:
                raise NotFound(f"no session {session_id!r} of tenant {tenant!r}")
            if latest.result is None:
                return latest
            await settle(latest, self._results)
            deletion = SessionVersion(
                tenant=tenant,
                session_id=session_id,
                version=latest.version + 1,
                saved_at=self._acting.now(),
                deleted_by=self._acting.caller.subject,
            )
            resource = keys.session(tenant, session_id, deletion.version)
            await self._acting.record(Action.SESSION_DELETED, tenant, resource, versions=latest.version)
            if await self._sessions.delete(deletion):
                return deletion
        raise SessionConflict(f"session {session_id!r} has new turns all the time: try again")

    async def _newest(self, tenant: str, session_id: str) -> SessionVersion | None:
        hint = await self._sessions.remembered(tenant, session_id)
        return await self._sessions.latest(tenant, session_id, hint=hint)

"""The journal of tool calls in object storage: a call begins once and ends once."""

from __future__ import annotations

import contextlib

from tasks import keys
from tasks.contracts.base import parse_versioned
from tasks.contracts.journal import CallBegun, CallOutcome, JournalKey, Scope
from tasks.contracts.words import new_id
from tasks.errors import AlreadyExists, CallInDoubt, NotFound
from tasks.stores.objects import ObjectStore

_BEGUN = "begun"
_DONE = "done"


class JournalStore:
    """The :class:`tasks.agents.types.Journal` of all tenants in one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def calls(self, scope: Scope) -> dict[JournalKey, bool]:
        """Return the calls of ``scope`` that were begun or have ended; true for those that have. One listing."""
        prefix = keys.journal_prefix(scope.tenant, scope.request_id, scope.revision, scope.step)
        found: dict[JournalKey, bool] = {}
        async for name in self._store.list(prefix):
            tool, digest, occurrence, state = keys.parse_journal_entry(prefix, name)
            key = JournalKey(scope, tool, digest, occurrence)
            found[key] = found.get(key, False) or state == _DONE
        return found

    async def begin(self, key: JournalKey) -> CallOutcome | None:
        """Record that the call begins; return its outcome where another attempt has made it in the meantime.

        Raises:
            CallInDoubt: another attempt began it and has not ended it.
        """
        begun = CallBegun(holder=new_id())
        try:
            await self._store.create(_name(key, _BEGUN), begun.to_bytes())
        except AlreadyExists:
            standing = parse_versioned(CallBegun, await self._store.get(_name(key, _BEGUN)))
            if standing.holder == begun.holder:
                return None
            try:
                return await self.outcome(key)
            except NotFound:
                raise CallInDoubt(f"{key.tool}: another attempt began this call and has not ended it") from None
        return None

    async def end(self, key: JournalKey, outcome: CallOutcome) -> None:
        """Record how the call ended, unless that is on record already."""
        with contextlib.suppress(AlreadyExists):
            await self._store.create(_name(key, _DONE), outcome.to_bytes())

    async def outcome(self, key: JournalKey) -> CallOutcome:
        """Return how the call ended; raises :class:`NotFound`."""
        return parse_versioned(CallOutcome, await self._store.get(_name(key, _DONE)))


def _name(key: JournalKey, state: str) -> str:
    scope = key.scope
    prefix = keys.journal_prefix(scope.tenant, scope.request_id, scope.revision, scope.step)
    return keys.journal_entry(prefix, key.tool, key.digest, key.occurrence, state)

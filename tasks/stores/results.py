"""Results in object storage: each revision is created once."""

from __future__ import annotations

from tasks import keys
from tasks.contracts.base import parse_versioned
from tasks.contracts.result import Result, Status
from tasks.errors import AlreadyExists, NotFound
from tasks.stores.objects import ObjectStore


class ResultStore:
    """The results of all tenants in one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def get(self, tenant: str, request_id: str, revision: int = 1, step: str | None = None) -> Result | None:
        """Return a result, or that of a step, or None while there is none."""
        try:
            return parse_versioned(Result, await self._store.get(_key(tenant, request_id, revision, step)))
        except NotFound:
            return None

    async def newest(self, tenant: str, request_id: str) -> Result | None:
        """Return the result of the newest revision that has one, or None. What succeeded has no later revision."""
        found = await self.get(tenant, request_id)
        while found and found.status is not Status.SUCCEEDED:
            later = await self.get(tenant, request_id, found.revision + 1)
            if later is None:
                break
            found = later
        return found

    async def create(self, result: Result) -> Result:
        """Write ``result`` unless its revision has one; return the result that is there now.

        It is ``result`` itself when its ``attempt`` is: also when a write of ours arrived and its answer did not.
        """
        try:
            await self._store.create(key_of(result), result.to_bytes())
        except AlreadyExists:
            found = await self.get(result.tenant, result.request_id, result.revision, result.step)
            if found is None:
                raise
            return found
        return result


def key_of(result: Result) -> str:
    """Return where ``result`` lies."""
    return _key(result.tenant, result.request_id, result.revision, result.step)


def _key(tenant: str, request_id: str, revision: int, step: str | None) -> str:
    if step is None:
        return keys.result(tenant, request_id, revision)
    return keys.step_result(tenant, request_id, revision, step)

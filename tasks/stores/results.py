"""Results in object storage: each revision is created once."""

from __future__ import annotations

from tasks import keys
from tasks.contracts.base import parse_versioned
from tasks.contracts.result import Result
from tasks.errors import AlreadyExists, NotFound
from tasks.stores.objects import ObjectStore


class ResultStore:
    """The results of all tenants in one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def get(self, tenant: str, request_id: str, revision: int = 1) -> Result | None:
        """Return a result, or None while there is none."""
        try:
            return parse_versioned(Result, await self._store.get(keys.result(tenant, request_id, revision)))
        except NotFound:
            return None

    async def create(self, result: Result) -> Result:
        """Write ``result`` unless its revision has one; return the result that is there now.

        It is ``result`` itself when its ``attempt`` is: also when a write of ours arrived and its answer did not.
        """
        try:
            await self._store.create(keys.result(result.tenant, result.request_id, result.revision), result.to_bytes())
        except AlreadyExists:
            found = await self.get(result.tenant, result.request_id, result.revision)
            if found is None:
                raise
            return found
        return result

"""Plans in object storage: each revision's is created once."""

from __future__ import annotations

from msgspec import Struct

from tasks import keys
from tasks.contracts.base import parse_versioned, sha256
from tasks.contracts.plan import Plan
from tasks.errors import AlreadyExists, NotFound
from tasks.stores.objects import ObjectStore


class StoredPlan(Struct, frozen=True):
    """A plan and the SHA-256 of the object that it lies in, which child grants name."""

    plan: Plan
    digest: str


class PlanStore:
    """The plans of all tenants in one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def get(self, tenant: str, request_id: str, revision: int) -> StoredPlan | None:
        """Return a plan, or None while there is none."""
        try:
            data = await self._store.get(keys.plan(tenant, request_id, revision))
        except NotFound:
            return None
        return StoredPlan(parse_versioned(Plan, data), sha256(data))

    async def create(self, plan: Plan) -> StoredPlan:
        """Write ``plan`` unless its revision has one; return the one that is there now."""
        data = plan.to_bytes()
        try:
            await self._store.create(keys.plan(plan.tenant, plan.request_id, plan.revision), data)
        except AlreadyExists:
            found = await self.get(plan.tenant, plan.request_id, plan.revision)
            if found is None:
                raise
            return found
        return StoredPlan(plan, sha256(data))

"""What the buckets say about a tenant's requests."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tasks.access.sources import load_keys
from tasks.audit.read import read
from tasks.audit.verify import verify
from tasks.contracts.audit import Action, AuditRecord
from tasks.contracts.base import parse_versioned, sha256
from tasks.contracts.result import Result
from tasks.settings import Settings
from tasks.stores.s3 import audit_store, data_store

COMPLETE = {Action.REQUEST_ACCEPTED, Action.INTENT_ROUTED, Action.AGENT_STARTED, Action.RESULT_WRITTEN}


@dataclass
class Evidence:
    """Results and sessions by object key, audit records by request id, and what is wrong with the chains."""

    results: dict[str, bytes] = field(default_factory=dict)
    sessions: list[str] = field(default_factory=list)
    records: dict[str, list[AuditRecord]] = field(default_factory=lambda: defaultdict(list))
    faults: list[object] = field(default_factory=list)

    def result(self, request_id: str) -> Result:
        """Return the one result of a request; fails unless there is exactly one."""
        [data] = [data for key, data in self.results.items() if key.endswith(f"/{request_id}.json")]
        return parse_versioned(Result, data)

    def actions(self, request_id: str) -> list[Action]:
        """Return what the audit says happened to a request, in order of time."""
        return [record.action for record in self.records[request_id]]

    def assert_whole(self, ids: list[str], *, overridden: bool = False) -> None:
        """Exactly one result for each id, a complete audit that names its digest, and chains that hold."""
        assert not self.faults
        assert len(self.results) == len(set(ids))
        expected = COMPLETE - {Action.INTENT_ROUTED} | {Action.INTENT_OVERRIDE} if overridden else COMPLETE
        for request_id in ids:
            [data] = [data for key, data in self.results.items() if key.endswith(f"/{request_id}.json")]
            assert expected <= set(self.actions(request_id)), (request_id, self.actions(request_id))
            written = {
                record.details["sha256"]
                for record in self.records[request_id]
                if record.action is Action.RESULT_WRITTEN
            }
            assert sha256(data) in written, f"the audit does not name the result of {request_id}"


async def gather(settings: Settings, tenant: str) -> Evidence:
    """Read everything that the buckets hold of ``tenant``."""
    data, audit = data_store(settings), audit_store(settings)
    found = Evidence()
    async for key in data.list(f"results/{tenant}/"):
        found.results[key] = await data.get(key)
    found.sessions = [key async for key in data.list(f"sessions/{tenant}/")]
    for record in await read(audit):
        if record.tenant == tenant:
            found.records[record.request_id].append(record)
    found.faults = list((await verify(audit, load_keys(settings).ring)).faults)
    return found

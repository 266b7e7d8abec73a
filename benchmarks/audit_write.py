"""What the audit costs the one who writes: CPU microseconds a segment and a record, by records in a segment.

python -m benchmarks.audit_write
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

from tasks.access.signing import generate
from tasks.audit import segment
from tasks.contracts.audit import GENESIS, Action, AuditRecord
from tasks.contracts.base import sha256
from tasks.contracts.words import new_id

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STREAM = "intent~host-1~01a20399-8a8b-7000-8000-000000000000"


def lines_of(count: int) -> list[bytes]:
    lines, previous = [], GENESIS
    for sequence in range(count):
        request = new_id()
        record = AuditRecord(
            action=Action.INTENT_ROUTED,
            actor="intent@host-17246-52deb78c",
            tenant="default",
            request_id=request,
            resource="agents.responder",
            details={"attempt": request, "confidence": 0.983, "intent": "answer_question", "number": 1},
            time=NOW,
            stream=STREAM,
            sequence=sequence,
            previous=previous,
        )
        lines.append(record.to_bytes())
        previous = sha256(lines[-1])
    return lines


def main() -> None:
    signer = generate("intent")
    for count in (1, 4, 20, 100, 2000):
        lines = lines_of(count)
        rounds = max(20, 4000 // count)
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            for _ in range(rounds):
                data = segment.pack(lines, stream=STREAM, first=0, previous=GENESIS, time=NOW, signer=signer)
            best = min(best, (time.process_time() - start) / rounds)
        plain = sum(map(len, lines))
        figures = {
            "records": count,
            "bytes": plain,
            "stored": len(data),
            "us_a_segment": round(best * 1e6, 1),
            "us_a_record": round(best / count * 1e6, 2),
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()

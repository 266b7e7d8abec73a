"""Write a sealed audit bucket of many records into a folder and measure what it takes to verify it.

python -m benchmarks.audit_verify --records 1000000 --segment 100
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks import keys
from tasks.access.signing import KeyRing, PublicKey, Scope, dump_ring, generate, parse_ring
from tasks.audit import ledger, note, segment
from tasks.audit.ledger import Leaf, State
from tasks.audit.verify import START, verify
from tasks.contracts.audit import GENESIS, Action, AuditRecord
from tasks.contracts.base import sha256
from tasks.contracts.words import new_id
from tasks.stores.folder import FolderObjectStore

RING = "ring.json"
STREAMS = 8
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


async def write(folder: Path, records: int, per_segment: int, per_checkpoint: int) -> None:
    """Write what eight processes and a sealer would: records like those of a worker, a checkpoint now and then."""
    signer, sealer = generate("intent"), generate("checkpoint")
    ring = KeyRing(
        [
            PublicKey(signer.kid, signer.public, Scope(purposes=("audit:intent",))),
            PublicKey(sealer.kid, sealer.public, Scope(purposes=("checkpoint",))),
        ]
    )
    (folder / RING).write_bytes(dump_ring(ring))
    store, state, previous, number = FolderObjectStore(folder), State(), START, 0
    streams = {keys.stream("intent", f"host-{index}", new_id()): (0, GENESIS) for index in range(STREAMS)}
    names, leaves, now = list(streams), [], BEGIN
    for index in range(-(-records // per_segment)):
        now += timedelta(milliseconds=30)
        name = names[index % STREAMS]
        first, last = streams[name]
        count = min(per_segment, records - index * per_segment)
        lines, before = [], last
        for place in range(count):
            lines.append(_line(name, first + place, last, now))
            last = sha256(lines[-1])
        data = segment.pack(lines, stream=name, first=first, previous=before, time=now, signer=signer)
        key = keys.segment(name, first, now)
        await store.create(key, data)
        streams[name] = (first + count, last)
        leaves.append(Leaf(key=key, count=count, last=last, object=sha256(data), closed=False))
        if len(leaves) == per_checkpoint or (index + 1) * per_segment >= records:
            previous = await _seal(store, leaves, state, now, number, previous, sealer)
            leaves, number = [], number + 1


async def _seal(store, leaves, state, now, number, previous, sealer):  # type: ignore[no-untyped-def]
    state.advance(leaves, now)
    data, leaf_digest = ledger.pack(ledger.leaf_lines(leaves))
    marks, mark_digest = ledger.pack(state.to_lines())
    await store.create(keys.leaves(number, leaf_digest), data)
    await store.create(keys.ledger_state(number, mark_digest), marks)
    checkpoint = note.Checkpoint(
        origin="sluice/audit/benchmark",
        size=state.tree.size,
        root=state.tree.root().hex(),
        number=number,
        time=now.replace(microsecond=now.microsecond // 1000 * 1000),
        previous=previous,
        leaves=leaf_digest,
        state=mark_digest,
    )
    signed = note.sign(checkpoint, sealer)
    await store.create(keys.checkpoint(number), signed)
    return sha256(signed)


def _line(stream: str, sequence: int, previous: str, now: datetime) -> bytes:
    request = new_id()
    return AuditRecord(
        action=Action.INTENT_ROUTED,
        actor="intent@host-17246-52deb78c",
        tenant="default",
        request_id=request,
        resource="agents.responder",
        details={
            "attempt": request,
            "confidence": 0.983,
            "intent": "answer_question",
            "model_version": "minilm-fa226a349ea1",
            "number": 1,
        },
        time=now,
        stream=stream,
        sequence=sequence,
        previous=previous,
    ).to_bytes()


def measure(folder: Path) -> dict[str, float]:
    """Verify once; return the figures."""
    ring = parse_ring((folder / RING).read_bytes(), RING)
    store = FolderObjectStore(folder)
    before, cpu, start = _peak(), time.process_time(), time.perf_counter()
    report = asyncio.run(verify(store, ring))
    seconds = time.perf_counter() - start
    if not report.ok:
        raise SystemExit(f"does not verify: {report.faults[:3]}")
    return {
        "records": report.records,
        "segments": report.segments,
        "checkpoints": report.checkpoints,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "records_per_second": round(report.records / seconds),
        "peak_mib_before": round(before / 1024, 1),
        "peak_mib": round(_peak() / 1024, 1),
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--segment", type=int, default=100, help="Records in a segment.")
    parser.add_argument("--checkpoint", type=int, default=1000, help="Segments in a checkpoint.")
    parser.add_argument("--folder", type=Path, help="Verify this copy, made before, and write nothing.")
    parser.add_argument("--keep", type=Path, help="Write the copy here and keep it.")
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(measure(options.folder)))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        asyncio.run(write(folder, options.records, options.segment, options.checkpoint))
        print(f"wrote {options.records} records in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        # Another process, so that its peak of memory is that of verifying.
        subprocess.run([sys.executable, "-m", "benchmarks.audit_verify", "--folder", str(folder)], check=True)


if __name__ == "__main__":
    main()

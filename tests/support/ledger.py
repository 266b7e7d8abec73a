"""A sealed audit bucket in memory: keys, streams, sealers, a clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from tasks.access.signing import KeyRing, PublicKey, Scope, SigningKey, generate
from tasks.audit.faults import Fault, Verification
from tasks.audit.stream import AuditStream
from tasks.audit.verify import Options, verify
from tasks.audit.witness import BucketWitness
from tasks.seal import Sealed, Sealer
from tasks.stores.objects import MemoryObjectStore, ObjectStore
from tests.support import build
from tests.support.clock import Clock

ORIGIN = "sluice/audit/test"
PERIOD = timedelta(seconds=60)


def public(key: SigningKey, *purposes: str) -> PublicKey:
    return PublicKey(key.kid, key.public, Scope(purposes=purposes))


class Ledger:
    """A bucket, its witness, and who writes there. ``ring`` trusts one key for each pool and one for checkpoints."""

    def __init__(self, store: ObjectStore | None = None) -> None:
        self.memory = MemoryObjectStore()
        self.store = store or self.memory
        self.witness = MemoryObjectStore()
        self.clock = Clock()
        self.pools = {name: generate(name) for name in ("intent", "responder", "door", "sealer")}
        self.checkpoints = generate("checkpoint")
        self.ring = KeyRing(
            [
                *(public(key, f"audit:{name}") for name, key in self.pools.items()),
                public(self.checkpoints, "checkpoint"),
            ]
        )
        self._streams: list[AuditStream] = []

    def stream(self, pool: str = "intent", **fields: Any) -> AuditStream:
        standard = {
            "host": "h1",
            "signer": self.pools[pool.partition("+")[0]],
            "redact": lambda value: value,
            "now": self.clock,
            "flush_seconds": 3600,
        }
        stream = AuditStream(pool, self.store, **{**standard, **fields})
        self._streams.append(stream)
        return stream

    def sealer(self, store: ObjectStore | None = None, **fields: Any) -> Sealer:
        standard = {
            "signer": self.checkpoints,
            "ring": self.ring,
            "origin": ORIGIN,
            "period": PERIOD,
            "audit": self.stream("sealer"),
            "now": self.clock,
            "witness": BucketWitness(self.witness),
        }
        return Sealer(store or self.store, **{**standard, **fields})

    async def seal(self) -> Sealed:
        """Let a period pass and a new sealer work."""
        self.clock.advance(PERIOD.total_seconds())
        sealed = await self.sealer().run_once()
        assert sealed is not None
        return sealed

    async def verify(self, store: ObjectStore | None = None, **options: Any) -> Verification:
        return await verify(store or self.store, self.ring, Options(**options))

    async def faults(self, store: ObjectStore | None = None, **options: Any) -> list[Fault]:
        return (await self.verify(store, **options)).faults

    async def close(self) -> None:
        for stream in self._streams:
            await stream.close()

    def listed(self, prefix: str = "audit/") -> list[str]:
        return sorted(key for key in self.memory.objects if key.startswith(prefix))


async def write(stream: AuditStream, ids: Sequence[str], *, clock: Clock | None = None) -> None:
    """Write one segment with a record for each id."""
    await stream.commit([build.event(request_id=request_id, reason=f"about {request_id}") for request_id in ids])
    if clock:
        clock.advance(1)


async def filled(streams: int = 3, rounds: int = 4, records: int = 3) -> Ledger:
    """Return a ledger of ``rounds`` checkpoints; in each every stream wrote a segment. One stream is closed."""
    ledger = Ledger()
    open_ones = [ledger.stream(pool) for pool in ("intent", "responder", "door")[:streams]]
    for number in range(rounds):
        for place, stream in enumerate(open_ones):
            await write(stream, [f"r{number}-{place}-{index}" for index in range(records)], clock=ledger.clock)
        if number == rounds - 2:
            await open_ones.pop().close()
        await ledger.seal()
    return ledger

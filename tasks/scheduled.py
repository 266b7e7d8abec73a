"""Puts together what runs on a schedule: the sweeper and the sealer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tasks.access.gate import open_gate
from tasks.access.redact import Redactor
from tasks.access.signing import CHECKPOINT
from tasks.audit.opening import open_process
from tasks.contracts.base import utc_now
from tasks.finish import make_finisher
from tasks.settings import Settings
from tasks.stores.objectlock import demand_lock
from tasks.stores.s3 import witness_store

if TYPE_CHECKING:
    from tasks.seal import Sealer
    from tasks.sweep import Sweeper


@contextlib.asynccontextmanager
async def open_sweeper(settings: Settings, *, now: Callable[[], datetime] = utc_now) -> AsyncIterator[Sweeper]:
    """Yield a sweeper over real stores."""
    from tasks.sweep import ACTOR, Sweeper

    await demand_lock(settings)
    async with open_process(settings, ACTOR, now=now) as (keyset, stores, audit):
        yield Sweeper(
            settings,
            register=stores.register,
            broker=stores.broker,
            relay=stores.relay,
            audit=audit,
            gate=open_gate(settings, keys=keyset, revocations=stores.revocations, now=now),
            plans=stores.plans,
            results=stores.results,
            finisher=make_finisher(settings, stores, audit, now),
            redact=Redactor.of(settings.auditing).text,
            now=now,
        )


@contextlib.asynccontextmanager
async def open_sealer(settings: Settings, *, now: Callable[[], datetime] = utc_now) -> AsyncIterator[Sealer]:
    """Yield a sealer over the real audit bucket, and the witness where there is one.

    Raises:
        NotReady: it has no key for checkpoints, or the bucket does not lock what it should.
    """
    from tasks.audit.witness import BucketWitness
    from tasks.seal import ACTOR, Sealer

    witness = witness_store(settings)
    await demand_lock(settings)
    async with open_process(settings, ACTOR, now=now) as (keyset, stores, audit):
        yield Sealer(
            stores.audit,
            signer=keyset.signer(CHECKPOINT),
            ring=keyset.ring,
            origin=f"sluice/audit/{settings.audit_bucket}",
            period=timedelta(seconds=settings.auditing.seal_seconds),
            audit=audit,
            now=now,
            witness=BucketWitness(witness) if witness else None,
        )

"""Puts a process together: a worker of one or more pools, or a sweeper."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from tasks import keys
from tasks.access.gate import Gate, open_gate
from tasks.access.redact import Redactor
from tasks.access.signing import CHECKPOINT, Keys
from tasks.access.sources import load_keys
from tasks.attempt import Deps
from tasks.audit.opening import open_audit
from tasks.audit.stream import AuditStream
from tasks.consumer import CANCEL_MARGIN_SECONDS, Consumer
from tasks.contracts.base import utc_now
from tasks.contracts.words import new_id
from tasks.errors import StoreError
from tasks.finish import Finisher
from tasks.heartbeat import Heartbeat
from tasks.hop import Hop
from tasks.log import get_logger
from tasks.settings import Settings
from tasks.stores.connect import Stores, connect
from tasks.stores.objectlock import demand_lock
from tasks.stores.s3 import witness_store

if TYPE_CHECKING:
    from intent.live import LiveModels
    from tasks.agents.types import AgentRunner
    from tasks.route import Classify
    from tasks.seal import Sealer
    from tasks.sweep import Sweeper

log = get_logger()


Now = Callable[[], datetime]


def process_name() -> str:
    """Return a name that no other process has or had."""
    return f"{socket.gethostname()}-{os.getpid()}-{new_id()[-8:]}"


def make_finisher(settings: Settings, stores: Stores, audit: AuditStream, now: Now) -> Finisher:
    """Return the tail over real stores."""
    return Finisher(
        audit=audit,
        results=stores.results,
        sessions=stores.sessions,
        register=stores.register,
        broker=stores.broker,
        relay=stores.relay,
        now=now,
        remember_seconds=settings.leases.remember_seconds,
        quotas=settings.quotas,
    )


class _Served(Struct, frozen=True):
    """One pool in this process."""

    pool: str
    hop: Hop
    heartbeat: Heartbeat
    consumer: Consumer


class Worker:
    """A process that serves ``pools``: stores and audit stream are shared, the rest is each pool's own.

    ``classify`` and ``runner`` stand in for the classifier and the agents of the settings. ``passed`` is told each step
    that is done.
    """

    def __init__(
        self,
        settings: Settings,
        pools: Sequence[str],
        *,
        gate: Gate | None = None,
        classify: Classify | None = None,
        runner: AgentRunner | None = None,
        open_stores: Callable[[Settings], Stores] = connect,
        now: Now = utc_now,
        passed: Callable[[str], None] | None = None,
    ) -> None:
        self.settings = settings
        self.process = process_name()
        self.pools = tuple(dict.fromkeys(pools))
        self._keys = load_keys(settings)
        self._redactor = Redactor.of(settings.auditing)
        self._given_gate = gate
        self._classify = classify
        self._runner = runner
        self._open_stores = open_stores
        self._now = now
        self._passed = passed
        self._models: LiveModels | None = None
        self._served: list[_Served] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Worker:
        """Connect, load the model or the agents, start the heartbeats."""
        async with contextlib.AsyncExitStack() as stack:
            await demand_lock(self.settings)
            self._stores = await stack.enter_async_context(self._open_stores(self.settings))
            self._audit = await stack.enter_async_context(
                open_audit(
                    "+".join(self.pools),
                    self.settings,
                    self._stores,
                    keyset=self._keys,
                    redactor=self._redactor,
                    now=self._now,
                )
            )
            self._gate = self._given_gate or open_gate(
                self.settings, keys=self._keys, revocations=self._stores.revocations, now=self._now
            )
            self._finisher = make_finisher(self.settings, self._stores, self._audit, self._now)
            if self._passed:
                self._finisher.passed = self._passed
            for pool in self.pools:
                self._served.append(await self._serve(pool, stack))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the heartbeats, write the audit, disconnect; in the reverse order of opening."""
        await self._stack.aclose()

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until ``stopping`` is set, then drain."""
        consumers = [served.consumer for served in self._served]
        runs = [asyncio.create_task(consumer.run(), name="consume") for consumer in consumers]
        told = asyncio.create_task(stopping.wait())
        try:
            # A consumer that ends by itself has a fault: the others drain, and the process ends with it.
            await asyncio.wait([told, *runs], return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
            await self._drain(consumers, runs)
        for run in runs:
            if not run.cancelled():
                run.result()

    async def _drain(self, consumers: Sequence[Consumer], runs: Sequence[asyncio.Task[None]]) -> None:
        """End within the grace period, whatever a server that does not answer holds up."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.settings.scaling.grace_seconds
        for consumer in consumers:
            consumer.stop()
        await asyncio.wait(runs, timeout=max(end - loop.time() - CANCEL_MARGIN_SECONDS, 0.0))
        for run in runs:
            run.cancel()
        left = max(end - loop.time(), CANCEL_MARGIN_SECONDS)
        await asyncio.gather(*(consumer.drain(left) for consumer in consumers))

    async def _serve(self, pool: str, stack: contextlib.AsyncExitStack) -> _Served:
        settings, stores = self.settings, self._stores
        heartbeat = Heartbeat(
            pool=pool,
            register=stores.register,
            broker=stores.broker,
            settings=settings.leases,
            now=self._now,
            beacon=lambda running: self._beacon(pool, running),
        )
        deps = Deps(
            settings=settings,
            worker=f"{pool}@{self.process}",
            pool=pool,
            gate=self._gate,
            audit=self._audit,
            register=stores.register,
            broker=stores.broker,
            relay=stores.relay,
            bodies=stores.bodies,
            results=stores.results,
            sessions=stores.sessions,
            finisher=self._finisher,
            heartbeat=heartbeat,
            now=self._now,
            redact=self._redactor.text,
        )
        hop = await self._route(deps, stack) if pool == keys.INTENT_POOL else self._work(deps, stack)
        beating = asyncio.create_task(heartbeat.run(), name=f"heartbeat {pool}")
        stack.push_async_callback(self._retire, pool, beating)
        consumer = Consumer(
            pool,
            stores.broker,
            hop.handle,
            concurrency=settings.pool(pool).concurrency,
            visibility_seconds=settings.queue.visibility_seconds,
            now=self._now,
        )
        return _Served(pool, hop, heartbeat, consumer)

    async def _route(self, deps: Deps, stack: contextlib.AsyncExitStack) -> Hop:
        from tasks.route import Route

        return Route(deps, self._classify or await self._load_classifier(deps, stack))

    async def _load_classifier(self, deps: Deps, stack: contextlib.AsyncExitStack) -> Classify:
        from intent.live import LiveModels

        stores = self._stores
        self._models = LiveModels(
            self.settings, stores.data, stores.board, worker=deps.worker, report=deps.audit.report
        )
        stack.push_async_callback(self._models.close)
        await self._models.start()
        return self._models.classify

    def _work(self, deps: Deps, stack: contextlib.AsyncExitStack) -> Hop:
        from tasks.work import Work

        if self._runner is None:
            from tasks.agents.team import TeamRunner

            self._runner = TeamRunner(self.settings)
            stack.push_async_callback(self._runner.close)
        return Work(deps, self._runner)

    async def _beacon(self, pool: str, running: int) -> None:
        beat = {
            "pool": pool,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "model_version": "",
            "running": running,
            "beat": self._now().timestamp(),
        }
        if self._models and pool == keys.INTENT_POOL:
            beat |= self._models.facts
            await self._models.flush()
        await self._stores.board.beat(f"{pool}@{self.process}", beat)
        if self.settings.leases.alive_file:
            self.settings.leases.alive_file.touch()

    async def _retire(self, pool: str, beating: asyncio.Task[None]) -> None:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        with contextlib.suppress(StoreError):  # a board that is away will forget this worker by itself
            await self._stores.board.retire(f"{pool}@{self.process}")


def run(worker: Worker) -> None:
    """Run ``worker`` in this process until SIGTERM or SIGINT, which drain it."""
    import uvloop

    uvloop.run(serve(worker))


async def serve(worker: Worker) -> None:
    """See :func:`run`; on the running loop."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with worker:
        log.info("worker ready", worker=worker.process, pools=list(worker.pools))
        await worker.run(stopping)


@contextlib.asynccontextmanager
async def _opened(settings: Settings, actor: str, now: Now) -> AsyncIterator[tuple[Keys, Stores, AuditStream]]:
    """Yield what a process needs that runs on a schedule: its keys, the stores, and its audit stream."""
    keyset = load_keys(settings)
    await demand_lock(settings)
    redactor = Redactor.of(settings.auditing)
    async with (
        connect(settings) as stores,
        open_audit(actor, settings, stores, keyset=keyset, redactor=redactor, now=now) as audit,
    ):
        yield keyset, stores, audit


@contextlib.asynccontextmanager
async def open_sweeper(settings: Settings, *, now: Now = utc_now) -> AsyncIterator[Sweeper]:
    """Yield a sweeper over real stores."""
    from tasks.sweep import ACTOR, Sweeper

    async with _opened(settings, ACTOR, now) as (keyset, stores, audit):
        yield Sweeper(
            settings,
            register=stores.register,
            broker=stores.broker,
            relay=stores.relay,
            audit=audit,
            gate=open_gate(settings, keys=keyset, revocations=stores.revocations, now=now),
            finisher=make_finisher(settings, stores, audit, now),
            now=now,
        )


@contextlib.asynccontextmanager
async def open_sealer(settings: Settings, *, now: Now = utc_now) -> AsyncIterator[Sealer]:
    """Yield a sealer over the real audit bucket, and the witness where there is one.

    Raises:
        NotReady: it has no key for checkpoints, or the bucket does not lock what it should.
    """
    from tasks.audit.witness import BucketWitness
    from tasks.seal import ACTOR, Sealer

    witness = witness_store(settings)
    async with _opened(settings, ACTOR, now) as (keyset, stores, audit):
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

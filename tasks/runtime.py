"""Puts a process together: a worker of one pool, or a sweeper."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

from tasks import keys
from tasks.access.gate import Gate, OpenGate
from tasks.access.redact import Redactor
from tasks.attempt import Deps, Disposition, Hop
from tasks.audit.stream import AuditStream
from tasks.contracts.base import utc_now
from tasks.contracts.request import new_id
from tasks.contracts.result import IntentInfo
from tasks.errors import StoreError
from tasks.finish import Finisher
from tasks.heartbeat import Heartbeat
from tasks.settings import Settings
from tasks.stores.connect import Stores, connect
from tasks.sweep import ACTOR, Sweeper

Now = Callable[[], datetime]


def worker_name(pool: str) -> str:
    """Return a name that no other process has or had."""
    return f"{pool}@{socket.gethostname()}-{os.getpid()}-{new_id()[-8:]}"


def open_audit(settings: Settings, stores: Stores, component: str, now: Now) -> AuditStream:
    """Return a new stream of this process."""
    return AuditStream(
        f"{component}-{new_id()}",
        stores.audit,
        redact=Redactor(settings.auditing.sensitive_fields).value,
        now=now,
        flush_seconds=settings.auditing.flush_seconds,
    )


def make_finisher(settings: Settings, stores: Stores, audit: AuditStream, now: Now) -> Finisher:
    """Return the tail over real stores."""
    return Finisher(
        audit=audit,
        results=stores.results,
        sessions=stores.sessions,
        register=stores.register,
        broker=stores.broker,
        now=now,
        remember_seconds=settings.leases.remember_seconds,
    )


class WorkerRuntime:
    """A worker of ``pool``; the :class:`tasks.pool.Handler` that the Celery pool drives."""

    def __init__(
        self,
        settings: Settings,
        pool: str,
        name: str,
        *,
        gate: Gate | None = None,
        now: Now = utc_now,
        passed: Callable[[str], None] | None = None,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.name = name
        self.model_version = ""
        self._gate = gate or OpenGate()
        self._now = now
        self._passed = passed
        self._stack = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Connect, load the model or the agents, start the heartbeat."""
        self._stores = await self._stack.enter_async_context(connect(self.settings))
        audit = open_audit(self.settings, self._stores, self.pool, self._now)
        self._stack.push_async_callback(audit.close)
        finisher = make_finisher(self.settings, self._stores, audit, self._now)
        if self._passed:
            finisher.passed = self._passed
        heartbeat = Heartbeat(
            pool=self.pool,
            register=self._stores.register,
            broker=self._stores.broker,
            settings=self.settings.leases,
            now=self._now,
            beacon=self._beacon,
        )
        deps = Deps(
            settings=self.settings,
            worker=self.name,
            pool=self.pool,
            gate=self._gate,
            audit=audit,
            register=self._stores.register,
            broker=self._stores.broker,
            bodies=self._stores.bodies,
            results=self._stores.results,
            sessions=self._stores.sessions,
            finisher=finisher,
            heartbeat=heartbeat,
            now=self._now,
            redact=Redactor(self.settings.auditing.sensitive_fields).text,
        )
        self._hop = await self._make_hop(deps)
        beating = asyncio.create_task(heartbeat.run(), name="heartbeat")
        self._stack.push_async_callback(self._retire, beating)

    async def handle(self, task: str, raw: dict[str, Any], tag: str) -> Disposition:
        """See :class:`tasks.pool.Handler`. A message of the other hop is recognised by its stage in the register."""
        return await self._hop.handle(raw, tag)

    async def close(self) -> None:
        """Stop the heartbeat, write the audit, disconnect; in the reverse order of opening."""
        await self._stack.aclose()

    async def _make_hop(self, deps: Deps) -> Hop:
        if self.pool == keys.INTENT_POOL:
            return await self._make_route(deps)
        from tasks.agents.team import TeamRunner
        from tasks.work import Work

        runner = TeamRunner(self.settings)
        self._stack.push_async_callback(runner.close)
        return Work(deps, runner)

    async def _make_route(self, deps: Deps) -> Hop:
        from intent.batcher import batch_classifier
        from intent.classifier import Classifier
        from tasks.route import Route

        chosen = self.settings.intent
        # Loading holds the loop for about a tenth of a second: nothing else runs yet.
        classifier = Classifier.load(chosen.model_dir, threads=chosen.threads)
        batcher = batch_classifier(classifier, chosen, threshold=self.settings.routing.threshold)
        self._stack.push_async_callback(batcher.close)
        self.model_version = classifier.version

        async def classify(text: str) -> IntentInfo:
            found = await batcher.submit(text)
            return IntentInfo(label=found.label, confidence=found.confidence, model_version=found.model_version)

        return Route(deps, classify)

    async def _beacon(self, running: int) -> None:
        beat = {
            "pool": self.pool,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "model_version": self.model_version,
            "running": running,
            "beat": self._now().timestamp(),
        }
        await self._stores.board.beat(self.name, beat)

    async def _retire(self, beating: asyncio.Task[None]) -> None:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        with contextlib.suppress(StoreError):  # a board that is away will forget this worker by itself
            await self._stores.board.retire(self.name)


@contextlib.asynccontextmanager
async def open_sweeper(settings: Settings, *, now: Now = utc_now) -> AsyncIterator[Sweeper]:
    """Yield a sweeper over real stores."""
    async with connect(settings) as stores:
        audit = open_audit(settings, stores, ACTOR, now)
        try:
            yield Sweeper(
                settings,
                register=stores.register,
                broker=stores.broker,
                audit=audit,
                finisher=make_finisher(settings, stores, audit, now),
                now=now,
            )
        finally:
            await audit.close()

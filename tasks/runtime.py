"""Puts a worker of one or more pools together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from tasks import keys
from tasks.access.gate import Gate, open_gate
from tasks.access.redact import Redactor
from tasks.access.seals import AgentSeals
from tasks.access.sources import load_keys
from tasks.attempt import Deps
from tasks.audit.opening import open_audit
from tasks.consumer import Consumer
from tasks.contracts.base import utc_now
from tasks.contracts.words import new_id
from tasks.errors import StoreError
from tasks.finish import make_finisher
from tasks.heartbeat import Heartbeat
from tasks.hop import Hop
from tasks.log import get_logger
from tasks.reload import Reload
from tasks.settings import Settings
from tasks.settings.queues import CANCEL_MARGIN_SECONDS
from tasks.settings_load import Source
from tasks.stores.connect import Stores, connect
from tasks.stores.objectlock import demand_lock
from tasks.stores.session_cache import SessionCache
from tasks.stores.sessions import SessionStore

if TYPE_CHECKING:
    from intent.live import LiveModels
    from tasks.agents.types import AgentRunner, Planner
    from tasks.load import Meter
    from tasks.route import Classify

log = get_logger()

_IDLE_LOOK_SECONDS: Final = 0.5

Now = Callable[[], datetime]


def process_name() -> str:
    """Return a name that no other process has or had."""
    return f"{socket.gethostname()}-{os.getpid()}-{new_id()[-8:]}"


class _Served(Struct, frozen=True):
    """One pool in this process."""

    pool: str
    hop: Hop
    heartbeat: Heartbeat
    consumer: Consumer


class Worker:
    """A process that serves ``pools``: stores and audit stream are shared, the rest is each pool's own.

    ``classify``, ``runner`` and ``planner`` stand in for the classifier and the agents of the settings; with ``runner``
    alone nothing is planned. ``source`` is where the settings are read again from. ``passed`` is told each step that is
    done.
    """

    def __init__(
        self,
        settings: Settings,
        pools: Sequence[str],
        *,
        gate: Gate | None = None,
        classify: Classify | None = None,
        runner: AgentRunner | None = None,
        planner: Planner | None = None,
        source: Source | None = None,
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
        self._planner = planner
        self._open_stores = open_stores
        self._now = now
        self._passed = passed
        self._models: LiveModels | None = None
        self._place: Callable[[str], str] = keys.agent_pool
        self._meter: Meter | None = None
        self._source = source
        self._reload: Reload | None = None
        self._served: list[_Served] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Worker:
        """Connect, load the model or the agents, start the heartbeats."""
        async with contextlib.AsyncExitStack() as stack:
            await demand_lock(self.settings)
            stores = await stack.enter_async_context(self._open_stores(self.settings))
            self._stores = replace(stores, sessions=self._sessions(stores))
            self._audit = await stack.enter_async_context(
                open_audit(
                    "+".join(dict.fromkeys(map(keys.base_pool, self.pools))),  # a shard signs with its pool's key
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
            if self.settings.sharded:
                self._place = self._coordinate(stack)
            if self._source:
                self._reload = self._reloading(self._source)
                stack.push_async_callback(self._reload.close)
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
        end = loop.time() + self.settings.grace(*self.pools)
        for consumer in consumers:
            consumer.stop()
        await asyncio.wait(runs, timeout=max(end - loop.time() - CANCEL_MARGIN_SECONDS, 0.0))
        for run in runs:
            run.cancel()
        left = max(end - loop.time(), CANCEL_MARGIN_SECONDS)
        await asyncio.gather(*(consumer.drain(left) for consumer in consumers))

    def _coordinate(self, stack: contextlib.AsyncExitStack) -> Callable[[str], str]:
        """Take part in weighing the shards; return what chooses between them."""
        from random import random

        from tasks.coordinate import Coordinator
        from tasks.shards import Placement
        from tasks.stores.weights import WeightStore

        stores = self._stores
        placement = Placement(self.settings, random)
        coordinator = Coordinator(
            self.settings,
            name=self.process,
            board=stores.board,
            broker=stores.broker,
            store=WeightStore(stores.link),
            placement=placement,
            now=self._now,
        )
        stack.push_async_callback(_cancelled, asyncio.create_task(coordinator.run(), name="coordinate"))
        return placement

    def _sessions(self, stores: Stores) -> SessionStore:
        """Return the sessions with a cache whose entries other workers believe."""
        seals = AgentSeals(self._keys, "+".join(self.pools))
        cache = SessionCache(stores.link, seconds=self.settings.sessions.cache_seconds, seals=seals)
        return SessionStore(stores.data, cache)

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
            plans=stores.plans,
            journal=stores.journal,
            sessions=stores.sessions,
            escalations=stores.escalations,
            finisher=self._finisher,
            heartbeat=heartbeat,
            now=self._now,
            redact=self._redactor.text,
            place=self._place,
        )
        hop = await self._hop(deps, stack)
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

    async def _hop(self, deps: Deps, stack: contextlib.AsyncExitStack) -> Hop:
        if deps.pool == keys.INTENT_POOL:
            return await self._route(deps, stack)
        return self._deliver(deps) if deps.pool == keys.CALLBACK_POOL else self._work(deps, stack)

    def _deliver(self, deps: Deps) -> Hop:
        from tasks.access.webhooks import load_masters
        from tasks.courier import Courier
        from tasks.deliver import Deliver

        callbacks = self.settings.callbacks
        return Deliver(deps, Courier(callbacks), load_masters(callbacks))

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
            from tasks.agents.models.registry import ModelRegistry
            from tasks.agents.planner import TeamPlanner
            from tasks.agents.team import TeamRunner

            models = ModelRegistry(self.settings)
            runner = TeamRunner(self.settings, models=models, data=self._stores.data)
            self._planner = self._planner or TeamPlanner(models, runner)
            stack.push_async_callback(runner.close)
            for agent in self.settings.agents:
                if keys.agent_pool(agent.type) in map(keys.base_pool, self.pools):
                    runner.check(agent)
            self._runner = runner
            if self.settings.model_cache.preload:
                self._preload(runner, stack)
        return Work(deps, self._runner, self._planner)

    async def until_idle(self, seconds: float) -> None:
        """Return once nothing was in hand for ``seconds``."""
        loop = asyncio.get_running_loop()
        seen, busy_at = [served.heartbeat.work for served in self._served], loop.time()
        while loop.time() - busy_at < seconds:
            await asyncio.sleep(min(_IDLE_LOOK_SECONDS, seconds))
            work = [served.heartbeat.work for served in self._served]
            if work != seen or any(held for _, held in work):
                seen, busy_at = work, loop.time()

    def reload(self) -> None:
        """Begin to read the settings again, if it is known where they come from."""
        if self._reload:
            self._reload.soon()

    def _reloading(self, source: Source) -> Reload:
        return Reload(
            source,
            self.settings,
            pools=self.pools,
            apply=self._configure,
            report=self._audit.report,
            actor=self.process,
        )

    async def _configure(self, settings: Settings) -> None:
        if self._runner:
            await self._runner.configure(settings)
        self.settings = settings
        for served in self._served:
            served.hop.deps = replace(served.hop.deps, settings=settings)

    def _preload(self, runner: AgentRunner, stack: contextlib.AsyncExitStack) -> None:
        """Begin to make the clients of the usual models; the first message need not wait for it."""
        models = self.settings.model_cache.preload
        preloading = asyncio.create_task(runner.preload(models), name="preload")

        async def end() -> None:
            preloading.cancel()
            await asyncio.wait([preloading])

        stack.push_async_callback(end)

    async def _beacon(self, pool: str, running: int) -> None:
        beat = {
            "pool": pool,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "model_version": "",
            "running": running,
            "beat": self._now().timestamp(),
        }
        if self._reload:
            self._reload.look()
        if keys.shard_of(pool):
            beat["load"] = self._load(pool)
        if self._models and pool == keys.INTENT_POOL:
            beat |= self._models.facts
            await self._models.flush()
        await self._stores.board.beat(f"{pool}@{self.process}", beat)
        if self.settings.leases.alive_file:
            self.settings.leases.alive_file.touch()

    def _load(self, pool: str) -> dict[str, float]:
        if self._meter is None:
            from tasks.load import Meter

            self._meter = Meter()
        return self._meter.load(self.settings.pool(pool).bandwidth_mbit).to_dict()

    async def _retire(self, pool: str, beating: asyncio.Task[None]) -> None:
        await _cancelled(beating)
        with contextlib.suppress(StoreError):  # a board that is away will forget this worker by itself
            await self._stores.board.retire(f"{pool}@{self.process}")


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def run(worker: Worker, *, idle_seconds: float | None = None) -> None:
    """Run ``worker`` in this process until SIGTERM or SIGINT, or for ``idle_seconds`` without work; then drain it."""
    import uvloop

    uvloop.run(serve(worker, idle_seconds=idle_seconds))


async def serve(worker: Worker, *, idle_seconds: float | None = None) -> None:
    """See :func:`run`; on the running loop."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, worker.reload)
    async with worker:
        log.info("worker ready", worker=worker.process, pools=list(worker.pools))
        if idle_seconds is None:
            await worker.run(stopping)
            return
        idle = asyncio.create_task(worker.until_idle(idle_seconds), name="idle")
        idle.add_done_callback(lambda _: stopping.set())
        await worker.run(stopping)
        await _cancelled(idle)

"""The local autoscaler: obeys the ScaledObjects that KEDA would, with worker processes for replicas.

It is three in one. KEDA and the HorizontalPodAutoscaler say how many replicas there are to be (:mod:`scaling.rules`);
like a Deployment it starts what is missing, also in place of what died; like a kubelet it tells workers to stop, and
kills one that has not ended when its grace period is long over.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from scaling.bells import Bells
from scaling.objects import Watch, rendered
from scaling.processes import Processes, Spawned
from scaling.rules import Scaler
from scaling.warm import WarmParent, warm_parent
from tasks.contracts.words import new_id
from tasks.errors import SluiceError, StoreError
from tasks.log import get_logger
from tasks.settings import Settings
from tasks.stores.board import Board
from tasks.stores.broker import Broker, Depth
from tasks.stores.connect import connect

log = get_logger()

WORKER_PREFIX: Final = "worker-"
_START_WINDOW_SECONDS: Final = 60.0
_STARTS_PER_WORKER: Final = 10
_KEPT_LOGS: Final = 50

Running = Callable[[], Awaitable[Mapping[int, int]]]
"""Tells how many requests each worker runs, by pid."""


class _Pool:
    """What is known of one pool between two looks. ``desired`` is None until its workers were seen."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.scaler = Scaler(watch.rules)
        self.desired: int | None = None
        self.peak = 0
        self.starts: list[float] = []


class Autoscaler:
    """Watches the pools. ``start`` and ``send`` act on worker processes; tests put their own in.

    ``stopping`` are the names of workers that were told to stop by an autoscaler before this one.
    """

    def __init__(
        self,
        watches: Mapping[str, Watch],
        *,
        broker: Broker,
        start: Callable[[str], object],
        send: Callable[[Spawned, signal.Signals], None],
        workers: Callable[[], Mapping[str, list[Spawned]]],
        running: Running,
        now: Callable[[], float],
        stopping: frozenset[str] = frozenset(),
    ) -> None:
        self._pools = {pool: _Pool(watch) for pool, watch in watches.items()}
        self._broker = broker
        self._start = start
        self._send = send
        self._workers = workers
        self._running = running
        self._now = now
        self._stopping = dict.fromkeys(stopping, now())

    async def run_once(self, *, pushed: bool = False) -> dict[str, dict[str, Any]]:
        """Look once and act; return what each pool has and wants.

        ``pushed``: pools that sleep are looked at even where it is not time for it.
        """
        depths = await self._depths()
        found = self._workers()
        names = {worker.name for workers in found.values() for worker in workers}
        self._stopping = {name: since for name, since in self._stopping.items() if name in names}
        return {pool: await self._scale(pool, depths.get(pool), found.get(pool, []), pushed) for pool in self._pools}

    async def _depths(self) -> Mapping[str, Depth]:
        try:
            return await self._broker.depths(list(self._pools))
        except StoreError as error:
            log.warning("queues do not answer", error=str(error))
            return {}

    async def _scale(self, name: str, depth: Depth | None, workers: list[Spawned], pushed: bool) -> dict[str, Any]:
        pool = self._pools[name]
        serving = [worker for worker in workers if worker.name not in self._stopping]
        before = len(serving) if pool.desired is None else pool.desired
        metric = pool.watch.metric(depth) if depth else None
        pool.desired = pool.scaler.decide(self._now(), metric, before, pushed=pushed)
        pool.peak = max(pool.peak, pool.desired)
        load = {"waiting": depth.waiting, "running": depth.running} if depth else {}
        if pool.desired != before:
            log.info("scaling", pool=name, workers=len(serving), to=pool.desired, **load)
        for _ in range(pool.desired - len(serving)):
            if self._may_start(name, pool):
                self._start(name)
        for worker in await self._surplus(serving, pool.desired):
            self._stopping[worker.name] = self._now()
            self._send(worker, signal.SIGTERM)
        self._kill_overdue(pool, workers)
        return {
            "workers": len(workers),
            "desired": pool.desired,
            "peak": pool.peak,
            **load,
            "stopping": [worker.name for worker in workers if worker.name in self._stopping],
        }

    async def _surplus(self, serving: list[Spawned], desired: int) -> list[Spawned]:
        """Return the workers to stop: of those that have least to do the youngest. All of them drain."""
        if desired >= len(serving):
            return []
        running = await self._running() if desired else {}
        return sorted(serving, key=lambda worker: (running.get(worker.pid, 0), -worker.created))[
            : len(serving) - desired
        ]

    def _may_start(self, name: str, pool: _Pool) -> bool:
        """Tell whether another start is sensible: workers that die again and again are not started at every look."""
        now = self._now()
        pool.starts = [time for time in pool.starts if time > now - _START_WINDOW_SECONDS]
        if len(pool.starts) >= _STARTS_PER_WORKER * pool.watch.rules.maximum:
            log.warning("workers do not stay alive, waiting", pool=name, starts=len(pool.starts))
            return False
        pool.starts.append(now)
        return True

    def _kill_overdue(self, pool: _Pool, workers: list[Spawned]) -> None:
        """Kill what did not end in its time. It has handed back what it ran, unless it hangs."""
        overdue = self._now() - pool.watch.termination_seconds
        for worker in workers:
            if self._stopping.get(worker.name, overdue) < overdue:
                log.error("worker did not end in its grace period, killing it", worker=worker.name, pid=worker.pid)
                self._send(worker, signal.SIGKILL)


def pool_of(spawned: Spawned) -> str | None:
    """Return the pool that a process serves, None if it is not a worker."""
    if not spawned.name.startswith(WORKER_PREFIX):
        return None
    return spawned.name.removeprefix(WORKER_PREFIX).rpartition("-")[0]


def start_worker(processes: Processes, pool: str, parent: WarmParent | None = None) -> Spawned:
    """Start one worker process of ``pool``, by ``parent`` where that can."""
    processes.prune_logs(WORKER_PREFIX, keep=_KEPT_LOGS)
    command = [sys.executable, "-m", "handlers.cli.main", "worker", "--pool", pool]
    name = f"{WORKER_PREFIX}{pool}-{new_id()[-8:]}"
    return (parent and parent.fork(name, pool)) or processes.start(name, command)


async def autoscale(settings: Settings, processes: Processes, watches: Mapping[str, Watch] | None = None) -> None:
    """Scale all pools until cancelled, and keep what was seen where ``sluice status`` reads it.

    ``watches`` are those of the manifests that ``settings`` render to, if no others are given.
    """
    loop = asyncio.get_running_loop()
    watched = watches if watches is not None else rendered(settings)

    def workers() -> dict[str, list[Spawned]]:
        found: dict[str, list[Spawned]] = {}
        for spawned in processes.all():
            if pool := pool_of(spawned):
                found.setdefault(pool, []).append(spawned)
        return found

    async with connect(settings) as stores, warm_parent(settings.scaling, processes) as parent:
        bells = await Bells.listen(stores.broker, settings.pools)
        scaler = Autoscaler(
            watched,
            broker=stores.broker,
            start=lambda pool: start_worker(processes, pool, parent),
            send=lambda worker, number: worker.send(number),
            workers=workers,
            running=lambda: _running(stores.board, settings),
            now=loop.time,
            stopping=await _told_to_stop(stores.board),
        )
        polling = min(watch.rules.polling for watch in watched.values())
        pushed, at_zero = False, set[str]()
        while True:
            try:
                seen = await scaler.run_once(pushed=pushed)
                at_zero = {pool for pool, facts in seen.items() if not facts["desired"]}
                await stores.board.post_pools(seen)
            except SluiceError as error:
                log.failure("autoscaler failed, trying again", error)
            except Exception:  # an autoscaler that ends leaves everybody waiting
                log.exception("autoscaler failed, trying again")
            pushed = await bells.wait(polling, at_zero)


async def _running(board: Board, settings: Settings) -> dict[int, int]:
    """Return how many requests each worker ran at its last heartbeat, by pid; nothing where the board is away."""
    import socket
    import time

    found: dict[int, int] = {}
    try:
        beats = await board.workers(since=time.time() - settings.leases.lease_seconds)
    except StoreError as error:
        log.warning("board does not answer, stopping the youngest workers", error=str(error))
        return found
    for facts in beats:
        if facts["host"] == socket.gethostname():
            found[facts["pid"]] = found.get(facts["pid"], 0) + facts["running"]
    return found


async def _told_to_stop(board: Board) -> frozenset[str]:
    """Return the workers that the autoscaler before this one told to stop: they drain, and serve nothing new."""
    try:
        pools = await board.pools()
    except StoreError as error:
        log.warning("board does not answer, taking every worker for one that serves", error=str(error))
        return frozenset()
    return frozenset(name for facts in pools.values() for name in facts.get("stopping", ()))

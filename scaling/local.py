"""The local autoscaler: worker processes from zero to a pool's maximum and back, by waiting plus running work."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from scaling.bells import Bells
from scaling.processes import Processes, Spawned
from scaling.warm import WarmParent, warm_parent
from tasks.contracts.words import new_id
from tasks.log import get_logger
from tasks.settings import PoolSettings, ScalingSettings, Settings
from tasks.stores.broker import Broker, Depth
from tasks.stores.connect import connect

log = get_logger()

WORKER_PREFIX: Final = "worker-"
_START_WINDOW_SECONDS: Final = 60.0
_STARTS_PER_WORKER: Final = 10
_KEPT_LOGS: Final = 50


def wanted(depth: Depth, pool: PoolSettings) -> int:
    """Return how many workers the load asks for: none for none, else at least one, at most the pool's maximum."""
    return min(math.ceil(depth.total / pool.requests_per_worker), pool.max_workers)


@dataclass
class Trend:
    """What a pool has asked for lately. Scales up at once; down only when less was asked for a whole cooldown."""

    peak: int = 0
    asked: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, want: int, current: int, *, now: float, cooldown: float) -> int:
        """Return the number of workers to have at ``now`` (seconds of any clock)."""
        self.asked = [(time, count) for time, count in self.asked if time > now - cooldown]
        self.asked.append((now, want))
        decided = max(want, min(current, max(count for _, count in self.asked)))
        self.peak = max(self.peak, decided)
        return decided


class Autoscaler:
    """Watches the pools. ``start`` and ``stop`` act on worker processes; tests put their own in."""

    def __init__(
        self,
        settings: ScalingSettings,
        pools: Mapping[str, PoolSettings],
        *,
        broker: Broker,
        start: Callable[[str], object],
        stop: Callable[[Spawned], None],
        workers: Callable[[], Mapping[str, list[Spawned]]],
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._pools = pools
        self._broker = broker
        self._start = start
        self._stop = stop
        self._workers = workers
        self._now = now
        self._trends = {pool: Trend() for pool in pools}
        self._stopping: set[int] = set()
        self._starts: dict[str, list[float]] = {}

    async def run_once(self) -> dict[str, dict[str, int]]:
        """Look once and act; return what each pool has and wants."""
        depths = await self._broker.depths(list(self._pools))
        running = self._workers()
        self._stopping &= {worker.pid for workers in running.values() for worker in workers}
        return {pool: self._scale(pool, depths[pool], running.get(pool, [])) for pool in self._pools}

    def _may_start(self, pool: str) -> bool:
        """Tell whether another start is sensible: workers that die again and again are not started at every look."""
        now = self._now()
        recent = [time for time in self._starts.get(pool, ()) if time > now - _START_WINDOW_SECONDS]
        allowed = len(recent) < _STARTS_PER_WORKER * self._pools[pool].max_workers
        if not allowed:
            log.warning("workers do not stay alive, waiting", pool=pool, starts=len(recent))
        self._starts[pool] = [*recent, now] if allowed else recent
        return allowed

    def _scale(self, pool: str, depth: Depth, workers: list[Spawned]) -> dict[str, int]:
        serving = [worker for worker in workers if worker.pid not in self._stopping]
        trend = self._trends[pool]
        want = wanted(depth, self._pools[pool])
        decided = trend.decide(want, len(serving), now=self._now(), cooldown=self._settings.cooldown_seconds)
        if decided != len(serving):
            log.info(
                "scaling",
                pool=pool,
                workers=len(serving),
                to=decided,
                waiting=depth.waiting,
                running=depth.running,
            )
        for _ in range(decided - len(serving)):
            if self._may_start(pool):
                self._start(pool)
        for worker in sorted(serving, key=lambda worker: worker.created)[decided:]:
            self._stopping.add(worker.pid)
            self._stop(worker)
        return {
            "workers": len(workers),
            "desired": decided,
            "peak": trend.peak,
            "waiting": depth.waiting,
            "running": depth.running,
        }


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


async def autoscale(settings: Settings, processes: Processes) -> None:
    """Scale all pools until cancelled, and keep what was seen where ``sluice status`` reads it."""
    loop = asyncio.get_running_loop()

    def workers() -> dict[str, list[Spawned]]:
        found: dict[str, list[Spawned]] = {}
        for spawned in processes.all():
            if pool := pool_of(spawned):
                found.setdefault(pool, []).append(spawned)
        return found

    async with connect(settings) as stores, warm_parent(settings.scaling, processes) as parent:
        bells = await Bells.listen(stores.broker, settings.pools)
        scaler = Autoscaler(
            settings.scaling,
            {pool: settings.pool(pool) for pool in settings.pools},
            broker=stores.broker,
            start=lambda pool: start_worker(processes, pool, parent),
            stop=lambda worker: worker.send(signal.SIGTERM),
            workers=workers,
            now=loop.time,
        )
        at_zero: set[str] = set()
        while True:
            try:
                seen = await scaler.run_once()
                at_zero = {pool for pool, facts in seen.items() if not facts["desired"]}
                await stores.board.post_pools(seen)
            except Exception:  # an autoscaler that ends leaves everybody waiting
                log.exception("autoscaler failed, trying again")
            await bells.wait(settings.scaling.polling_seconds, at_zero)

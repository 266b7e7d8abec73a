"""Which shard of a pool gets the next request: the rules, without any input or output."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import accumulate
from typing import Final

from msgspec import Struct

from tasks import keys
from tasks.contracts.weights import Load, ShardState, ShardWeight, Weights
from tasks.settings import Settings

_CPU: Final = 0.4
_MEMORY: Final = 0.3
_NETWORK: Final = 0.3
_FREE: Final = 1.0


def score(load: Load) -> float:
    """Return the weight, 0 to 1, of a worker with ``load``."""
    return min(_CPU * load.cpu_free + _MEMORY * load.memory_free + _NETWORK * load.network_free, 1.0)


class Sight(Struct, frozen=True):
    """What is seen of one shard: the ``loads`` of the workers that report, and since when its ``oldest`` waits."""

    loads: Sequence[Load] = ()
    reported_at: float = 0.0
    oldest: float | None = None


def weigh(sight: Sight, before: ShardWeight | None, *, now: float, patience: float) -> ShardWeight:
    """Return the weight of a shard; ``before`` is its last one. Times are Unix seconds.

    ``patience`` is how long work may wait without a worker that reports, from the later of its arrival and the last
    report. Within it a shard keeps the weight that it had: one that has just died is not taken for one at rest.
    """
    if sight.loads:
        load = _mean(sight.loads)
        return ShardWeight(
            weight=score(load),
            state=ShardState.SERVING,
            workers=len(sight.loads),
            load=load,
            reported_at=sight.reported_at,
        )
    reported_at = before.reported_at if before else 0.0
    if sight.oldest is None:
        return ShardWeight(weight=_FREE, state=ShardState.IDLE, reported_at=reported_at)
    if now - max(sight.oldest, reported_at) > patience:
        return ShardWeight(weight=0.0, state=ShardState.SILENT, reported_at=reported_at)
    kept = before.weight if before and before.is_healthy else _FREE
    return ShardWeight(weight=kept, state=ShardState.WAKING, reported_at=reported_at)


def _mean(loads: Sequence[Load]) -> Load:
    count = len(loads)
    return Load(
        cpu_free=sum(load.cpu_free for load in loads) / count,
        memory_free=sum(load.memory_free for load in loads) / count,
        network_free=sum(load.network_free for load in loads) / count,
    )


class Chances(Struct, frozen=True):
    """Shards, and the running totals of their weights."""

    shards: tuple[str, ...]
    bounds: tuple[float, ...]

    def at(self, point: float) -> str:
        """Return the shard at ``point``, which is at least 0 and less than 1."""
        last = len(self.shards) - 1
        return self.shards[min(bisect_right(self.bounds, point * self.bounds[last]), last)]

    def share(self, shard: str) -> float:
        """Return how much of the work ``shard`` gets, 0 to 1."""
        if shard not in self.shards:
            return 0.0
        index = self.shards.index(shard)
        return (self.bounds[index] - (self.bounds[index - 1] if index else 0.0)) / self.bounds[-1]


def chances(shards: Sequence[str], weights: Mapping[str, ShardWeight], *, draining: Collection[str] = ()) -> Chances:
    """Return who may get the next request.

    The healthy by weight; a shard without a weight is new, and free. All alike where all healthy ones are full, where
    none is healthy, and where there are no weights.
    """
    wanted = [shard for shard in shards if shard not in draining] or list(shards)
    healthy = [shard for shard in wanted if shard not in weights or weights[shard].is_healthy] or wanted
    parts = {shard: weights[shard].weight if shard in weights else _FREE for shard in healthy}
    chosen = {shard: part for shard, part in parts.items() if part > 0} or dict.fromkeys(healthy, _FREE)
    return Chances(tuple(chosen), tuple(accumulate(chosen.values())))


class Placement:
    """Says which pool gets the next request for an agent type. Without :meth:`update` every shard is as good."""

    def __init__(self, settings: Settings, random: Callable[[], float]) -> None:
        self._random = random
        self._shards = settings.sharded
        self._draining = draining(settings)
        self._chances: dict[str, Chances] = {}
        self.update(None)

    def __call__(self, agent_type: str) -> str:
        """Return the pool that gets a request for ``agent_type``: one of its shards where there are several."""
        pool = keys.agent_pool(agent_type)
        found = self._chances.get(pool)
        if found is None:
            return pool
        return found.shards[0] if len(found.shards) == 1 else found.at(self._random())

    def update(self, weights: Weights | None) -> None:
        """Go by ``weights`` from now on; by none where there are none."""
        known = weights.shards if weights else {}
        self._chances = {pool: chances(shards, known, draining=self._draining) for pool, shards in self._shards.items()}


def draining(settings: Settings) -> frozenset[str]:
    """Return the shards that shall get nothing."""
    return frozenset(
        keys.shard_pool(name, shard)
        for name, pool in settings.scaling.pools.items()
        for shard, chosen in pool.shards.items()
        if chosen.drain
    )

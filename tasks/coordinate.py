"""The coordinator: one worker of all weighs the shards, and every worker goes by what it says.

Any worker may lead, because there is one wherever there is work, and it costs nothing where there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from tasks import keys
from tasks.contracts.weights import Load, ShardState, ShardWeight, Weights
from tasks.log import get_logger
from tasks.settings import Settings
from tasks.shards import Placement, Sight, draining, weigh
from tasks.stores.board import Board
from tasks.stores.broker import Broker
from tasks.stores.weights import WeightStore

log = get_logger()

_LIVE_PERIODS: Final = 2
"""A worker that has not reported for so many heartbeats does not count."""
_LEADER_PERIODS: Final = 2
_CURRENT_PERIODS: Final = 4
"""Longer than a leader that died is one: its successor writes before its weights end."""
_UNKNOWN: Final = Load(cpu_free=1.0, memory_free=1.0, network_free=1.0)
"""What a worker of a version that does not report its load counts as."""


class Coordinator:
    """Leads if nobody else does, and tells ``placement`` the weights. ``name`` is this process's own."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        board: Board,
        broker: Broker,
        store: WeightStore,
        placement: Placement,
        now: Callable[[], datetime],
    ) -> None:
        self._name = name
        self._board = board
        self._broker = broker
        self._store = store
        self._placement = placement
        self._now = now
        self._period = settings.leases.heartbeat_seconds
        self._patience = _LIVE_PERIODS * self._period + settings.scaling.cold_start_seconds
        self._shards = [shard for shards in settings.sharded.values() for shard in shards]
        self._draining = draining(settings)
        self._current_until = 0.0

    async def run(self) -> None:
        """Do :meth:`run_once` at every heartbeat until cancelled."""
        while True:
            try:
                await self.run_once()
            except Exception as error:  # noqa: BLE001  requests are routed with and without weights
                log.warning("shards not weighed", error=str(error))
                if self._seconds() > self._current_until:
                    self._placement.update(None)
            await asyncio.sleep(self._period)

    async def run_once(self) -> bool:
        """Weigh, if this process leads, and take up the weights; tell whether it wrote them."""
        standing = await self._store.lead(self._name, seconds=_LEADER_PERIODS * self._period)
        weights, wrote = standing.weights, False
        if standing.token:
            weighed = await self._weighed(standing.token, weights.shards if weights else {})
            wrote = await self._store.publish(weighed, seconds=_CURRENT_PERIODS * self._period)
            if wrote:
                weights = weighed
            else:
                log.info("another coordinator leads", token=standing.token)
        self._placement.update(weights)
        self._current_until = weights.at + _CURRENT_PERIODS * self._period if weights else 0.0
        return wrote

    async def _weighed(self, token: int, before: dict[str, ShardWeight]) -> Weights:
        now = self._seconds()
        beats: dict[str, list[dict[str, Any]]] = {shard: [] for shard in self._shards}
        for beat in await self._board.workers(since=now - _LIVE_PERIODS * self._period):
            if beat["pool"] in beats:
                beats[beat["pool"]].append(beat)
        sights = await asyncio.gather(*(self._sight(shard, beats[shard]) for shard in self._shards))
        shards = {}
        for shard, sight in zip(self._shards, sights, strict=True):
            weighed = weigh(sight, before.get(shard), now=now, patience=self._patience)
            if shard in self._draining:
                weighed = weighed.changed(weight=0.0, state=ShardState.DRAINING)
            if weighed.state is ShardState.SILENT and (shard not in before or before[shard].is_healthy):
                log.warning("a shard has waiting work and no worker", shard=shard, patience_seconds=self._patience)
            shards[shard] = weighed
        return Weights(at=now, leader=self._name, token=token, shards=shards)

    async def _sight(self, shard: str, beats: list[dict[str, Any]]) -> Sight:
        if beats:
            return Sight([_load(beat) for beat in beats], max(beat["beat"] for beat in beats))
        waits = await asyncio.gather(*map(self._broker.oldest, keys.queues(shard)))
        return Sight(oldest=min((since for since in waits if since is not None), default=None))

    def _seconds(self) -> float:
        return self._now().timestamp()


def _load(beat: dict[str, Any]) -> Load:
    try:
        return msgspec.convert(beat["load"], Load) if "load" in beat else _UNKNOWN
    except msgspec.ValidationError as error:
        log.warning("a load that cannot be read", worker=beat["name"], error=str(error))
        return _UNKNOWN

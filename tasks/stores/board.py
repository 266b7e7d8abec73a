"""What live workers and the autoscaler say of themselves, for people to read.

The coordinator of shards goes by the loads of the workers: who lies costs balance, and no request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from tasks import keys
from tasks.stores.link import Link

_FORGET_SECONDS: Final = 3600.0
"""A worker that was killed could not take itself off; after this time somebody else does."""


class Board:
    """Two hashes in Redis: workers by name, pools by name."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def beat(self, worker: str, facts: Mapping[str, Any]) -> None:
        """Say that ``worker`` lives; ``facts`` hold the time as ``beat`` (Unix seconds)."""
        await self._link.call("HSET", keys.WORKERS, worker, orjson.dumps(facts))

    async def retire(self, worker: str) -> None:
        """Take ``worker`` off the board."""
        await self._link.call("HDEL", keys.WORKERS, worker)

    async def workers(self, *, since: float) -> list[dict[str, Any]]:
        """Return the workers that gave a sign of life since ``since``, with their ``name``."""
        found = await self._read(keys.WORKERS)
        for name, facts in found.items():
            if facts["beat"] < since - _FORGET_SECONDS:
                await self.retire(name)
        return [{"name": name, **facts} for name, facts in found.items() if facts["beat"] > since]

    async def post_pools(self, pools: Mapping[str, Mapping[str, Any]]) -> None:
        """Say what the autoscaler saw and wants."""
        await self._link.calls([("HSET", keys.POOLS, pool, orjson.dumps(facts)) for pool, facts in pools.items()])

    async def pools(self) -> dict[str, dict[str, Any]]:
        """Return what the autoscaler said last."""
        return await self._read(keys.POOLS)

    async def add(self, key: str, counts: Mapping[str, int], *, keep_seconds: int) -> None:
        """Add ``counts`` to the hash ``key``, which is forgotten after ``keep_seconds`` without additions.

        What was sent twice, because its answer was lost, is counted twice: these are figures for people.
        """
        added = [("HINCRBY", key, field, count) for field, count in counts.items()]
        await self._link.calls([*added, ("EXPIRE", key, keep_seconds)])

    async def totals(self, key: str) -> dict[str, int]:
        """Return what was added to the hash ``key``."""
        raw = await self._link.call("HGETALL", key)
        return {name.decode(): int(count) for name, count in raw.items()}

    async def _read(self, key: str) -> dict[str, dict[str, Any]]:
        raw = await self._link.call("HGETALL", key)
        return {name.decode(): orjson.loads(facts) for name, facts in raw.items()}

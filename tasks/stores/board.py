"""What live workers and the autoscaler say of themselves, for people to read. Nothing decides by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
import redis.asyncio

from tasks import keys
from tasks.stores.redis_errors import guarded

_FORGET_SECONDS: Final = 3600.0
"""A worker that was killed could not take itself off; after this time somebody else does."""


class Board:
    """Two hashes in Redis: workers by name, pools by name."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._redis = client

    async def beat(self, worker: str, facts: Mapping[str, Any]) -> None:
        """Say that ``worker`` lives; ``facts`` hold the time as ``beat`` (Unix seconds)."""
        await guarded("board", self._redis.hset(keys.WORKERS, worker, orjson.dumps(facts)))

    async def retire(self, worker: str) -> None:
        """Take ``worker`` off the board."""
        await guarded("board", self._redis.hdel(keys.WORKERS, worker))

    async def workers(self, *, since: float) -> list[dict[str, Any]]:
        """Return the workers that gave a sign of life since ``since``, with their ``name``."""
        found = await self._read(keys.WORKERS)
        for name, facts in found.items():
            if facts["beat"] < since - _FORGET_SECONDS:
                await self.retire(name)
        return [{"name": name, **facts} for name, facts in found.items() if facts["beat"] > since]

    async def post_pools(self, pools: Mapping[str, Mapping[str, int]]) -> None:
        """Say what the autoscaler saw and wants."""
        mapping: dict[Any, Any] = {pool: orjson.dumps(facts) for pool, facts in pools.items()}
        await guarded("board", self._redis.hset(keys.POOLS, mapping=mapping))

    async def pools(self) -> dict[str, dict[str, Any]]:
        """Return what the autoscaler said last."""
        return await self._read(keys.POOLS)

    async def _read(self, key: str) -> dict[str, dict[str, Any]]:
        raw = await guarded("board", self._redis.hgetall(key))
        return {name.decode() if isinstance(name, bytes) else name: orjson.loads(facts) for name, facts in raw.items()}

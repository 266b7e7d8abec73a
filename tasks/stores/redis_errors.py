"""Errors of the Redis client, in this project's words."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from redis.exceptions import RedisError

from tasks.errors import StoreError


async def guarded(what: str, call: Awaitable[Any]) -> Any:
    """Await ``call``; a client's error becomes a :class:`StoreError` that names ``what``."""
    try:
        return await call
    except RedisError as error:
        raise StoreError(f"{what}: {error}") from error

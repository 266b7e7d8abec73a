"""Opens the stores that the settings name. Real ones only: tests put fakes in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from tasks.errors import SettingsError
from tasks.settings import Settings
from tasks.stores.board import Board
from tasks.stores.bodies import BodyStore
from tasks.stores.objects import ObjectStore
from tasks.stores.redis_broker import RedisBroker
from tasks.stores.redis_register import RedisRegister
from tasks.stores.results import ResultStore
from tasks.stores.s3 import audit_store, data_store
from tasks.stores.sessions import SessionStore


@dataclass(frozen=True)
class Stores:
    """One process's connections. Not shared between event loops."""

    redis: redis.asyncio.Redis
    board: Board
    register: RedisRegister
    broker: RedisBroker
    data: ObjectStore
    audit: ObjectStore
    bodies: BodyStore
    results: ResultStore
    sessions: SessionStore

    async def __aenter__(self) -> Self:
        """Return the open stores."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.broker.close()
        await self.redis.aclose()


def connect(settings: Settings) -> Stores:
    """Return the stores. Connections are made when they are first used."""
    try:
        client = redis.asyncio.Redis.from_url(
            settings.redis_url,
            retry=Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.05), 3),
            socket_timeout=10,
            socket_connect_timeout=5,
        )
    except ValueError as error:
        raise SettingsError(f"redis_url: {error}") from error
    data = data_store(settings)
    return Stores(
        redis=client,
        board=Board(client),
        register=RedisRegister(client),
        broker=RedisBroker(client, settings.redis_url),
        data=data,
        audit=audit_store(settings),
        bodies=BodyStore(data, inline_bytes=settings.queue.inline_bytes),
        results=ResultStore(data),
        sessions=SessionStore(data),
    )

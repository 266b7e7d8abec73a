"""The broker on a Redis-protocol server, in kombu's format, so that Celery's workers can read it.

Messages are written in Celery's task message protocol, version 2, without importing Celery: doors stay light.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import kombu
import orjson
import redis.asyncio
from kombu.exceptions import OperationalError

from tasks import keys
from tasks.contracts.request import new_id
from tasks.errors import StoreError
from tasks.stores.broker import Depth, Parcel
from tasks.stores.redis_errors import guarded

_EMBED: Final = '{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'
_RETRY: Final = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 1.0}


def transport_options(pool: str | None, *, visibility_seconds: int) -> dict[str, Any]:
    """Return kombu's options for Redis. Each pool has in-flight keys of its own, so that a scaler can count it."""
    options: dict[str, Any] = {
        "visibility_timeout": visibility_seconds,
        "queue_order_strategy": "priority",
        "priority_steps": [0],
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,
        "socket_keepalive": True,
    }
    if pool:
        options |= {
            "unacked_key": keys.unacked(pool),
            "unacked_index_key": keys.unacked_index(pool),
            "unacked_mutex_key": keys.unacked_mutex(pool),
        }
    return options


def headers(parcel: Parcel) -> dict[str, Any]:
    """Return the headers of a task message. They say who and when, never what."""
    task_id = new_id()
    return {
        "lang": "py",
        "task": parcel.task,
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "group": None,
        "retries": 0,
        "eta": None,
        "expires": None,
        "timelimit": [None, None],
        "argsrepr": "-",
        "kwargsrepr": "-",
        "ignore_result": True,
        "ref": parcel.ref,
        "queued_at": parcel.queued_at,
    }


def task_body(message: str) -> str:
    """Return the body of a task message whose one argument is the JSON text ``message``."""
    return f"[[{message}],{{}},{_EMBED}]"


class RedisBroker:
    """See :class:`tasks.stores.broker.Broker`."""

    def __init__(self, client: redis.asyncio.Redis, url: str) -> None:
        self._redis = client
        self._connection = kombu.Connection(url, transport_options=transport_options(None, visibility_seconds=60))
        # kombu's connections belong to one thread: this one publishes, the event loop goes on.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publish")
        self._producer: kombu.Producer | None = None

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """See the port."""
        if parcels:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._publish, parcels)

    def _publish(self, parcels: Sequence[Parcel]) -> None:
        self._producer = self._producer or kombu.Producer(self._connection)
        try:
            for parcel in parcels:
                self._producer.publish(
                    task_body(parcel.message),
                    routing_key=parcel.queue,
                    headers=headers(parcel),
                    content_type=keys.CONTENT_TYPE,
                    content_encoding="utf-8",
                    correlation_id=parcel.ref,
                    retry=True,
                    retry_policy=_RETRY,
                )
        except OperationalError as error:
            raise StoreError(f"broker: {error}") from error

    async def oldest(self, queue: str) -> float | None:
        """See the port."""
        raw = await guarded("broker", cast("Awaitable[bytes | None]", self._redis.lindex(queue, -1)))
        if raw is None:
            return None
        try:
            return float(orjson.loads(raw)["headers"]["queued_at"])
        except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
            # A message of another producer says nothing about time: treat it as the oldest of all, so that nothing
            # behind it is taken for lost.
            return 0.0

    async def depths(self, pools: Sequence[str]) -> dict[str, Depth]:
        """See the port."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for pool in pools:
                for name in keys.queues(pool):
                    pipe.llen(name)
                pipe.hlen(keys.unacked(pool))
            sizes = await guarded("broker", pipe.execute())
        return {
            pool: Depth(waiting=sizes[3 * i] + sizes[3 * i + 1], running=sizes[3 * i + 2])
            for i, pool in enumerate(pools)
        }

    async def length(self, queue: str) -> int:
        """See the port."""
        return int(await guarded("broker", self._redis.llen(queue)))

    async def touch(self, pool: str, tags: Sequence[str], *, now: float) -> None:
        """See the port."""
        if tags:
            # XX: a message that was acknowledged meanwhile must not come back into the index.
            await guarded("broker", self._redis.zadd(keys.unacked_index(pool), dict.fromkeys(tags, now), xx=True))

    async def peek(self, queue: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """Return the messages of ``queue``, oldest first, without taking them."""
        raw = await guarded("broker", cast("Awaitable[list[bytes]]", self._redis.lrange(queue, -limit, -1)))
        return [_args(orjson.loads(item)) for item in reversed(raw)]

    async def close(self) -> None:
        """Let the connections go."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.release)
        self._thread.shutdown()


def _args(envelope: dict[str, Any]) -> dict[str, Any]:
    body = base64.b64decode(envelope["body"]) if _is_base64(envelope) else envelope["body"]
    return cast("dict[str, Any]", orjson.loads(body)[0][0])


def _is_base64(envelope: dict[str, Any]) -> bool:
    return bool(envelope.get("properties", {}).get("body_encoding") == "base64")

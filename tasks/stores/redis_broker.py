"""The broker on a Redis-protocol server: a list for each queue, a hash and a sorted set for what a pool has in flight.

A message is popped and recorded as in flight in one step, so none is ever in nobody's hands. A scaler sees what waits
as the length of the lists and what runs as the size of the hash.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from tasks import keys
from tasks.contracts.words import new_id
from tasks.stores import scripts
from tasks.stores.broker import Delivery, Depth, Letter, Parcel, envelope
from tasks.stores.link import Command, Link


class RedisBroker:
    """See :class:`tasks.stores.broker.Broker`."""

    batch = 1
    buries = False

    def __init__(self, link: Link) -> None:
        self._link = link
        process = new_id()
        self._tags = (f"{process}.{number}" for number in itertools.count())

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """See the port."""
        await self._link.calls([("LPUSH", keys.waiting(parcel.queue), envelope(parcel)) for parcel in parcels])
        for queue in {parcel.queue for parcel in parcels}:
            await self._link.call("PUBLISH", keys.bell(queue), "")

    async def receive(self, pool: str, most: int, *, now: float) -> list[Delivery]:
        """See the port."""
        queues = keys.queues(pool)
        tags = list(itertools.islice(self._tags, most))
        flat = await self._link.run(
            scripts.RECEIVE,
            [*_in_flight(pool), *map(keys.waiting, queues)],
            [repr(now), len(queues), *queues, *tags],
        )
        return [
            Delivery(tag.decode(), queue.decode(), data)
            for tag, queue, data in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]

    async def listen(self, pool: str, wake: Callable[[], None]) -> None:
        """See the port."""
        for queue in keys.queues(pool):
            await self._link.listen(keys.bell(queue), wake)

    async def acknowledge(self, pool: str, tags: Sequence[str]) -> None:
        """See the port."""
        if tags:
            unacked, index = _in_flight(pool)
            await self._link.calls([("HDEL", unacked, *tags), ("ZREM", index, *tags)])

    async def give_back(self, pool: str, tags: Sequence[str]) -> None:
        """See the port."""
        if tags:
            await self._link.run(scripts.GIVE_BACK, _in_flight(pool), list(tags))

    async def restore(self, pool: str, *, before: float, limit: int) -> int:
        """See the port."""
        return int(await self._link.run(scripts.RESTORE, _in_flight(pool), [repr(before), limit]))

    async def touch(self, pool: str, tags: Sequence[str], *, now: float) -> None:
        """See the port."""
        if tags:
            # XX: a message that was acknowledged meanwhile must not come back into the index.
            pairs = [part for tag in tags for part in (repr(now), tag)]
            await self._link.call("ZADD", keys.unacked_index(pool), "XX", *pairs)

    async def oldest(self, queue: str) -> float | None:
        """See the port."""
        raw = await self._link.call("LINDEX", keys.waiting(queue), -1)
        if raw is None:
            return None
        try:
            return float(orjson.loads(raw)["queued_at"])
        except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
            # A message of another producer says nothing about time: treat it as the oldest of all, so that nothing
            # behind it is taken for lost.
            return 0.0

    async def depths(self, pools: Sequence[str]) -> dict[str, Depth]:
        """See the port."""
        commands: list[Command] = []
        for pool in pools:
            commands += [("LLEN", keys.waiting(name)) for name in keys.queues(pool)]
            commands.append(("HLEN", keys.unacked(pool)))
        sizes = await self._link.calls(commands)
        return {
            pool: Depth(waiting=high + normal, running=running)
            for pool, high, normal, running in zip(pools, sizes[::3], sizes[1::3], sizes[2::3], strict=True)
        }

    async def length(self, queue: str) -> int:
        """See the port."""
        return int(await self._link.call("LLEN", keys.waiting(queue)))

    async def close(self) -> None:
        """See the port. The connection is not its own."""

    async def letters(self, queue: str, most: int, *, skip: int = 0) -> list[Letter]:
        """See the port. A tag is what lies there."""
        raw = await self._link.call("LRANGE", keys.waiting(queue), -(skip + most), -(skip + 1))
        return [Letter(item.decode("latin-1"), item) for item in reversed(raw)]

    async def leave(self, queue: str, tags: Sequence[str]) -> None:
        """See the port. Looking takes nothing."""

    async def remove(self, queue: str, tags: Sequence[str]) -> None:
        """See the port."""
        key = keys.waiting(queue)
        await self._link.calls([("LREM", key, -1, tag.encode("latin-1")) for tag in tags])

    async def peek(self, queue: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """Return the messages of ``queue``, oldest first, without taking them."""
        raw = await self._link.call("LRANGE", keys.waiting(queue), -limit, -1)
        return [orjson.loads(item)["message"] for item in reversed(raw)]


def _in_flight(pool: str) -> tuple[str, str]:
    return keys.unacked(pool), keys.unacked_index(pool)

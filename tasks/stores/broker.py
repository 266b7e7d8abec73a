"""The message broker: the port, and the in-memory broker for unit tests."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tasks import keys


@dataclass(frozen=True)
class Parcel:
    """One message for one queue. ``message`` is JSON, ``queued_at`` Unix seconds."""

    queue: str
    task: str
    ref: str
    message: str
    queued_at: float


@dataclass(frozen=True)
class Depth:
    """A pool's load in messages: ``waiting`` in its queues, ``running`` delivered and not acknowledged."""

    waiting: int
    running: int

    @property
    def total(self) -> int:
        """Return waiting plus running, which is what a pool is scaled on."""
        return self.waiting + self.running


class Broker(Protocol):
    """At-least-once queues."""

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """Put each message at the end of its queue; raises :class:`StoreError` if any may not have arrived."""

    async def oldest(self, queue: str) -> float | None:
        """Return when the message that is next in ``queue`` was queued, or None if nothing waits."""

    async def depths(self, pools: Sequence[str]) -> dict[str, Depth]:
        """Return the load of each pool."""

    async def length(self, queue: str) -> int:
        """Return how many messages wait in ``queue``."""

    async def touch(self, pool: str, tags: Sequence[str], *, now: float) -> None:
        """Keep the delivered messages ``tags`` from becoming visible again for another visibility timeout."""


class MemoryBroker:
    """Queues in memory. For unit tests; ``take`` plays the worker."""

    def __init__(self) -> None:
        self.queues: dict[str, deque[Parcel]] = defaultdict(deque)
        self.running: dict[str, int] = defaultdict(int)
        self.fail: Exception | None = None

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """See :class:`Broker`."""
        if self.fail:
            raise self.fail
        for parcel in parcels:
            self.queues[parcel.queue].append(parcel)

    def take(self, queue: str) -> Parcel:
        """Remove and return the oldest message of ``queue``."""
        return self.queues[queue].popleft()

    async def oldest(self, queue: str) -> float | None:
        """See :class:`Broker`."""
        return self.queues[queue][0].queued_at if self.queues[queue] else None

    async def depths(self, pools: Sequence[str]) -> dict[str, Depth]:
        """See :class:`Broker`."""
        return {
            pool: Depth(sum(len(self.queues[name]) for name in keys.queues(pool)), self.running[pool]) for pool in pools
        }

    async def length(self, queue: str) -> int:
        """See :class:`Broker`."""
        return len(self.queues[queue])

    async def touch(self, pool: str, tags: Sequence[str], *, now: float) -> None:
        """See :class:`Broker`."""

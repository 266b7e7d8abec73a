"""The message broker: the port, and the in-memory broker for unit tests."""

from __future__ import annotations

import base64
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import orjson
from msgspec import Struct

from tasks import keys


class Parcel(Struct, frozen=True):
    """One message for one queue. ``message`` is JSON, ``queued_at`` Unix seconds; ``reason`` is why it is put aside."""

    queue: str
    ref: str
    message: str
    queued_at: float
    reason: str = ""


class Delivery(Struct, frozen=True):
    """A message in the hands of one worker. ``data`` is whatever lay on the queue; ``tag`` names the delivery."""

    tag: str
    queue: str
    data: bytes


class Letter(Struct, frozen=True):
    """A message in a queue that nothing consumes. ``tag`` names it to the broker, ``data`` is whatever lies there.

    ``reason`` is why it was put there, where the queue itself says so.
    """

    tag: str
    data: bytes
    reason: str = ""


class Letters(Protocol):
    """Queues that nothing consumes, and that somebody looks through. Every method raises :class:`StoreError`."""

    async def letters(self, queue: str, most: int, *, skip: int = 0) -> list[Letter]:
        """Return at most ``most`` messages of ``queue``, the oldest first, after ``skip`` that were seen and left.

        Where a server shows only what it hands out, they are in nobody else's sight until :meth:`leave`, for a minute
        at most, and what is in sight is what was not seen.
        """

    async def leave(self, queue: str, tags: Sequence[str]) -> None:
        """Leave the letters ``tags`` where they are."""

    async def remove(self, queue: str, tags: Sequence[str]) -> None:
        """Take the letters ``tags`` away; those that are gone already are no fault."""


class Depth(Struct, frozen=True):
    """A pool's load in messages: ``waiting`` in its queues, ``running`` delivered and not acknowledged."""

    waiting: int
    running: int

    @property
    def total(self) -> int:
        """Return waiting plus running, which is what a pool is scaled on."""
        return self.waiting + self.running


class Broker(Letters, Protocol):
    """At-least-once queues. Every method raises :class:`StoreError` when the server cannot be reached.

    ``batch`` is how many messages it pays to take together: a consumer with fewer free slots waits a moment for more.
    ``buries`` tells whether the server itself puts with the dead letters what it has delivered too often.
    """

    buries: bool

    @property
    def batch(self) -> int:
        """See above; 1 where it does not matter."""

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """Put each message at the end of its queue; after an error any of them may or may not have arrived."""

    async def receive(self, pool: str, most: int, *, now: float) -> list[Delivery]:
        """Take at most ``most`` messages from the queues of ``pool``, the ``high`` one first; do not wait."""

    async def listen(self, pool: str, wake: Callable[[], None]) -> None:
        """Call ``wake`` whenever a queue of ``pool`` that was empty has a message. Some calls may be in vain."""

    async def acknowledge(self, pool: str, tags: Sequence[str]) -> None:
        """Forget messages that are done."""

    async def give_back(self, pool: str, tags: Sequence[str]) -> None:
        """Put messages that were not begun at the end of their queues."""

    async def restore(self, pool: str, *, before: float, limit: int) -> int:
        """Put messages whose worker gave no sign since ``before`` in front of their queues; return how many."""

    async def touch(self, pool: str, tags: Sequence[str], *, now: float) -> None:
        """Say that the delivered messages ``tags`` are still worked on."""

    async def oldest(self, queue: str) -> float | None:
        """Return when the message that is next in ``queue`` was queued, or None if nothing waits."""

    async def depths(self, pools: Sequence[str]) -> dict[str, Depth]:
        """Return the load of each pool."""

    async def length(self, queue: str) -> int:
        """Return how many messages wait in ``queue``."""

    async def close(self) -> None:
        """Let go of what is this broker's own."""


class MemoryBroker:
    """Queues in memory. For unit tests; ``take`` plays a worker that never acknowledges."""

    batch = 1

    def __init__(self, *, buries: bool = False) -> None:
        self.buries = buries
        self.queues: dict[str, deque[Parcel]] = defaultdict(deque)
        self.running: dict[str, dict[str, tuple[Parcel, float]]] = defaultdict(dict)
        self.fail: Exception | None = None
        self._bells: dict[str, list[Callable[[], None]]] = defaultdict(list)
        self._tags = 0

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """See :class:`Broker`."""
        self._check()
        for parcel in parcels:
            self.queues[parcel.queue].append(parcel)
            self._ring(parcel.queue)

    def take(self, queue: str) -> Parcel:
        """Remove and return the oldest message of ``queue``."""
        return self.queues[queue].popleft()

    async def receive(self, pool: str, most: int, *, now: float) -> list[Delivery]:
        """See :class:`Broker`."""
        self._check()
        taken: list[Delivery] = []
        for queue in keys.queues(pool):
            while self.queues[queue] and len(taken) < most:
                self._tags += 1
                parcel = self.queues[queue].popleft()
                self.running[pool][str(self._tags)] = (parcel, now)
                taken.append(Delivery(str(self._tags), queue, envelope(parcel)))
        return taken

    async def listen(self, pool: str, wake: Callable[[], None]) -> None:
        """See :class:`Broker`."""
        for queue in keys.queues(pool):
            self._bells[queue].append(wake)

    async def acknowledge(self, pool: str, tags: Sequence[str]) -> None:
        """See :class:`Broker`."""
        self._check()
        for tag in tags:
            self.running[pool].pop(tag, None)

    async def give_back(self, pool: str, tags: Sequence[str]) -> None:
        """See :class:`Broker`."""
        self._check()
        for tag in tags:
            if tag in self.running[pool]:
                await self.publish([self.running[pool].pop(tag)[0]])

    async def restore(self, pool: str, *, before: float, limit: int) -> int:
        """See :class:`Broker`."""
        self._check()
        overdue = [tag for tag, (_, since) in self.running[pool].items() if since <= before][:limit]
        for tag in overdue:
            parcel, _ = self.running[pool].pop(tag)
            self.queues[parcel.queue].appendleft(parcel)
            self._ring(parcel.queue)
        return len(overdue)

    async def touch(self, pool: str, tags: Sequence[str], *, now: float) -> None:
        """See :class:`Broker`."""
        for tag in tags:
            if tag in self.running[pool]:
                self.running[pool][tag] = (self.running[pool][tag][0], now)

    async def oldest(self, queue: str) -> float | None:
        """See :class:`Broker`."""
        return self.queues[queue][0].queued_at if self.queues[queue] else None

    async def depths(self, pools: Sequence[str]) -> dict[str, Depth]:
        """See :class:`Broker`."""
        return {
            pool: Depth(sum(len(self.queues[name]) for name in keys.queues(pool)), len(self.running[pool]))
            for pool in pools
        }

    async def length(self, queue: str) -> int:
        """See :class:`Broker`."""
        return len(self.queues[queue])

    async def letters(self, queue: str, most: int, *, skip: int = 0) -> list[Letter]:
        """See :class:`Letters`. A tag is what lies there."""
        self._check()
        shown = map(envelope, list(self.queues[queue])[skip : skip + most])
        return [Letter(data.decode(), data) for data in shown]

    async def leave(self, queue: str, tags: Sequence[str]) -> None:
        """See :class:`Letters`."""

    async def remove(self, queue: str, tags: Sequence[str]) -> None:
        """See :class:`Letters`."""
        self._check()
        for tag in tags:
            found = next((parcel for parcel in self.queues[queue] if envelope(parcel).decode() == tag), None)
            if found is not None:
                self.queues[queue].remove(found)

    async def close(self) -> None:
        """See :class:`Broker`."""

    def _check(self) -> None:
        if self.fail:
            raise self.fail

    def _ring(self, queue: str) -> None:
        for wake in self._bells[queue]:
            wake()


def envelope(parcel: Parcel) -> bytes:
    """Return what lies on a queue: when it was queued, the message, and why where it is put aside."""
    why = f',"reason":{orjson.dumps(parcel.reason).decode()}' if parcel.reason else ""
    return f'{{"queued_at":{parcel.queued_at!r},"message":{parcel.message}{why}}}'.encode()


def opened(data: bytes) -> dict[str, Any]:
    """Return the message in what lay on the queue; where there is none, ``data`` itself as ``unreadable``, base64."""
    try:
        message = orjson.loads(data)["message"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        message = None
    return message if isinstance(message, dict) else {"unreadable": base64.b64encode(data).decode()}

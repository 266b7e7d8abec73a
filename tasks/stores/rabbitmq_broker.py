"""The broker on RabbitMQ: two durable quorum queues for each pool, made at their first use, in a virtual host.

RabbitMQ itself delivers anew what an ended connection held, and loses nothing that it confirmed, so nothing is restored
here. Messages are fetched while they stand in line; an idle pool waits as a consumer, for its first message, with no
more credit than it has free slots. So nothing is prefetched that another worker could begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tasks import keys
from tasks.errors import StoreError
from tasks.stores.amqp import Address, Line, Wire, header
from tasks.stores.broker import Delivery, Depth, Letter, Parcel, envelope
from tasks.stores.intake import Intake
from tasks.stores.rabbitmq_management import Management

if TYPE_CHECKING:
    from aiormq.abc import DeliveredMessage

DELIVERY_LIMIT: Final = 20
"""Deliveries that may end without an acknowledgement before RabbitMQ buries a message: what 4.x has by default."""
_NO_LIMIT: Final = 2**31 - 1
"""For letters: RabbitMQ counts each look as a delivery, and 4.x would throw them away after twenty."""
_WAIT_SECONDS: Final = 60
"""How long an idle worker is a consumer before it makes itself one again, as it may have been dropped unseen."""
_BATCH: Final = 64
_WORTH: Final = 4
"""So many messages come cheaper by a consumer, which takes three calls, than by a call for each."""
_RUSH_SECONDS: Final = 0.05
"""How long messages that stood in line may take to come, before others are thought to have taken them."""
_SHOWN_SECONDS: Final = 60.0
"""For how long a letter is in the sight of who looks at it alone."""
_LOOKS: Final = 3
_LOOK_PAUSE_SECONDS: Final = 0.2
_LETTERS: Final = (keys.DEAD_LETTERS, keys.QUARANTINE)


class RabbitBroker:
    """See :class:`tasks.stores.broker.Broker`. A tag names its channel; it dies with the connection."""

    batch = 1
    buries = True

    def __init__(self, url: str) -> None:
        """Connect later, at the first use.

        Raises:
            SettingsError: ``url`` names no server.
            NotReady: the client library is not installed.
        """
        address = Address.of(url)
        self._wire = Wire(address)
        self._management = Management(address.management, address) if address.management else None
        self._intakes: dict[str, Intake] = {}
        self._wakes: dict[str, Callable[[], None]] = {}
        self._returns: set[asyncio.Task[None]] = set()

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """See the port."""
        await asyncio.gather(*(self._send(parcel.queue, envelope(parcel)) for parcel in parcels))

    async def receive(self, pool: str, most: int, *, now: float) -> list[Delivery]:
        """See the port. What is not there now is waited for in the background; see :meth:`listen`."""
        taken: list[Delivery] = []
        for queue in keys.queues(pool):
            if len(taken) < most:
                try:
                    taken += await self._intake(pool, queue).take(most - len(taken))
                except StoreError:
                    if not taken:
                        raise
        return taken

    async def listen(self, pool: str, wake: Callable[[], None]) -> None:
        """See the port: ``wake`` is called when a wait ends, which only :meth:`receive` begins."""
        self._wakes[pool] = wake

    async def acknowledge(self, pool: str, tags: Sequence[str]) -> None:
        """See the port."""
        await self._ack(tags)

    async def give_back(self, pool: str, tags: Sequence[str]) -> None:
        """See the port. It is sent anew: RabbitMQ would count it as delivered once more, and bury it in the end."""
        for tag in tags:
            if (found := self._wire.found(tag)) is not None:
                await self._give_back(_queue_of(tag), *found)

    async def restore(self, pool: str, *, before: float, limit: int) -> int:
        """See the port. RabbitMQ does it by itself when a worker's connection ends."""
        return 0

    async def touch(self, pool: str, tags: Sequence[str], *, now: float) -> None:
        """See the port. There is nothing to extend: a message is its worker's for as long as the connection lives."""

    async def oldest(self, queue: str) -> float | None:
        """See the port. RabbitMQ does not tell: while anything may be in a queue, nothing of it is taken for lost."""
        if await self._declare(queue) or self._management is None:
            return 0.0
        figures = (await self._management.figures()).get(queue)
        return None if figures is not None and figures.messages == 0 else 0.0

    async def depths(self, pools: Sequence[str]) -> dict[str, Depth]:
        """See the port. What runs is known by the management plugin alone, and counted as 0 without it."""
        figures = await self._management.figures() if self._management and pools else {}
        running = {name: one.messages_unacknowledged or 0 for name, one in figures.items()}
        found: dict[str, Depth] = {}
        for pool in pools:
            names = keys.queues(pool)
            waiting = [await self._declare(name) for name in names]
            found[pool] = Depth(sum(waiting), sum(running.get(name, 0) for name in names))
        return found

    async def length(self, queue: str) -> int:
        """See the port."""
        return await self._declare(queue)

    async def letters(self, queue: str, most: int, *, skip: int = 0) -> list[Letter]:
        """See the port. What was seen is out of sight, so nothing has to be skipped."""
        for look in range(_LOOKS if skip == 0 else 1):
            if look:
                await asyncio.sleep(
                    _LOOK_PAUSE_SECONDS
                )  # somebody else, such as the sweeper, may look at them just now
            if found := await self._fetch(f"look {queue}", queue, most):
                break
        if found:
            self._later(self._leave_after(queue, [tag for tag, _ in found]))
        return [Letter(tag, message.body, header(message, "x-first-death-reason")) for tag, message in found]

    async def leave(self, queue: str, tags: Sequence[str]) -> None:
        """See the port."""
        async with self._wire.guarded(f"leave in {queue}"):
            for tag in tags:
                if (found := self._wire.found(tag)) is not None:
                    await found[0].channel.basic_nack(found[1].delivery_tag or 0, requeue=True)

    async def remove(self, queue: str, tags: Sequence[str]) -> None:
        """See the port."""
        await self._ack(tags)

    async def close(self) -> None:
        """Give back what came and nobody took; end the connection."""
        for task in self._returns:
            task.cancel()
        await asyncio.gather(*(intake.close() for intake in self._intakes.values()))
        await self._wire.close()
        if self._management is not None:
            await self._management.close()

    def _intake(self, pool: str, queue: str) -> Intake:
        if queue not in self._intakes:
            self._intakes[queue] = Intake(
                partial(self._take, queue),
                partial(self.give_back, pool),
                partial(self._ring, pool),
                batch=_BATCH,
                wait_seconds=_WAIT_SECONDS,
            )
        return self._intakes[queue]

    def _ring(self, pool: str) -> None:
        if wake := self._wakes.get(pool):
            wake()

    async def _give_back(self, queue: str, line: Line, message: DeliveredMessage) -> None:
        try:
            await self._send(queue, message.body)
        except StoreError:
            if not line.channel.is_closed:  # else it comes again by itself; here it counts, and nobody holds it
                async with self._wire.guarded(f"give back to {queue}"):
                    await line.channel.basic_nack(message.delivery_tag or 0, requeue=True)
            raise
        async with self._wire.guarded(f"give back to {queue}"):
            await line.channel.basic_ack(message.delivery_tag or 0)

    async def _send(self, queue: str, body: bytes) -> None:
        await self._ensure(queue)
        async with self._wire.guarded(f"publish to {queue}"):
            line = await self._wire.line("publish")
            try:
                # Mandatory: a queue that somebody deleted is an error, and no silence.
                await line.channel.basic_publish(body, routing_key=queue, properties=_properties(), mandatory=True)
            except Exception:
                self._wire.declared.discard(queue)
                raise

    async def _take(self, queue: str, most: int, wait: int) -> list[Delivery]:
        purpose = f"take {queue}"
        found = await (self._wait(purpose, queue, most, wait) if wait else self._fetch(purpose, queue, most))
        return [Delivery(tag, queue, message.body) for tag, message in found]

    async def _fetch(self, purpose: str, queue: str, most: int) -> list[tuple[str, DeliveredMessage]]:
        """Return at most ``most`` messages that are there."""
        await self._ensure(queue)
        found: list[tuple[str, DeliveredMessage]] = []
        while len(found) < most:
            async with self._wire.guarded(f"get {queue}"):
                line = await self._wire.line(purpose)
                message = await line.channel.basic_get(queue)
            if message.delivery_tag is None:
                break
            found.append((line.hold(message), message))
            if (left := min(most - len(found), message.message_count or 0)) >= _WORTH:
                return found + await self._wait(purpose, queue, left, _RUSH_SECONDS, enough=left)
        return found

    async def _wait(
        self, purpose: str, queue: str, most: int, seconds: float, *, enough: int = 1
    ) -> list[tuple[str, DeliveredMessage]]:
        """Be a consumer of ``queue`` until ``enough`` came, ``seconds`` at most; return all that came by then."""
        await self._ensure(queue)
        found: list[tuple[str, DeliveredMessage]] = []
        came = asyncio.get_running_loop().create_future()

        async def arrived(message: DeliveredMessage) -> None:
            found.append((line.hold(message), message))
            if len(found) == enough:
                came.set_result(None)

        async with self._wire.guarded(f"consume {queue}"):
            line = await self._wire.line(purpose)
            await line.channel.basic_qos(prefetch_count=most)
            consumer = await line.channel.basic_consume(queue, arrived)
        closing = line.channel.closing
        await asyncio.wait({came, closing}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        if line.channel.is_closed:
            return []  # what came is delivered anew; the next look connects, or says why it cannot
        async with self._wire.guarded(f"consume {queue}"):
            await line.channel.basic_cancel(str(consumer.consumer_tag))
        return found

    async def _ack(self, tags: Sequence[str]) -> None:
        """Acknowledge what is in hand. What is not has been, or belongs to a channel that is gone: it comes again."""
        async with self._wire.guarded("acknowledge"):
            for tag in tags:
                if (found := self._wire.found(tag)) is not None:
                    await found[0].channel.basic_ack(found[1].delivery_tag or 0)

    async def _ensure(self, queue: str) -> None:
        if queue not in self._wire.declared:
            await self._declare(queue)

    async def _declare(self, queue: str) -> int:
        """Make ``queue`` if it is not there; return how many messages wait in it."""
        if queue not in _LETTERS:
            await self._ensure(keys.DEAD_LETTERS)  # where it buries, which it cannot before that is there
        async with self._wire.guarded(f"declare {queue}"):
            line: Line = await self._wire.line("declare")
            answer = await line.channel.queue_declare(queue, durable=True, arguments=arguments(queue))
        self._wire.declared.add(queue)
        return answer.message_count or 0

    async def _leave_after(self, queue: str, tags: Sequence[str]) -> None:
        await asyncio.sleep(_SHOWN_SECONDS)
        await self.leave(queue, tags)

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)


def arguments(queue: str) -> dict[str, Any]:
    """Return what ``queue`` is declared with. RabbitMQ refuses a queue that was declared with anything else."""
    if queue in _LETTERS:
        return {"x-queue-type": "quorum", "x-delivery-limit": _NO_LIMIT}
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": keys.DEAD_LETTERS,
        # Else what is buried is gone where the dead letters cannot be written just then; it asks for the second.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _properties() -> Any:
    from aiormq import spec

    return spec.Basic.Properties(content_type="application/json", delivery_mode=2)


def _queue_of(tag: str) -> str:
    """Return the queue in ``take QUEUE`` of a tag."""
    return tag.partition("\n")[0].partition(" ")[2]

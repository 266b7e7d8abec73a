"""From the register to the queues: rows are published, and marked as published.

A broker of its own takes two steps for that, and the sweeper mends what falls between them. Where broker and register
are one server, :class:`tasks.stores.redis_relay.RedisRelay` does it in one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tasks import keys
from tasks.contracts.message import Message
from tasks.contracts.row import Row
from tasks.errors import StoreError
from tasks.log import get_logger
from tasks.stores.broker import Broker, Parcel
from tasks.stores.register import Handover, Register

log = get_logger()


class Relay(Protocol):
    """The port."""

    async def publish(self, rows: Sequence[Row], *, now: float) -> None:
        """Publish rows as they stand, and mark them. Who dies in between leaves a duplicate, which does no harm."""

    async def hand_over(self, ref: str, holder: str, handover: Handover, *, now: float, due: float) -> None:
        """Move a request to its next queue; if it is not published there by ``due``, the sweeper does it.

        Raises:
            LeaseLost: another attempt has the lease.
        """


class TwoStepRelay:
    """Any broker beside any register. ``passed`` is told of the gap; tests kill the process there."""

    def __init__(
        self, register: Register, broker: Broker, *, passed: Callable[[str], None] = lambda step: None
    ) -> None:
        self._register = register
        self._broker = broker
        self._passed = passed

    async def publish(self, rows: Sequence[Row], *, now: float) -> None:
        """See the port."""
        parcels = [Parcel(row.queue, reference(row), row.message, now) for row in rows if not row.throttled]
        await self._broker.publish(parcels)
        await self._register.published([(reference(row), row.queue, row.generation) for row in rows], now=now)

    async def hand_over(self, ref: str, holder: str, handover: Handover, *, now: float, due: float) -> None:
        """See the port."""
        generation = await self._register.advance(ref, holder, handover, due=due)
        self._passed("advance")
        try:
            await self._broker.publish([Parcel(handover.queue, ref, handover.message, now)])
            self._passed("publish")
            await self._register.published([(ref, handover.queue, generation)], now=now)
        except StoreError as error:
            log.warning("not published, the sweeper will", error=str(error))


async def publish_waiting(ref: str, register: Register, relay: Relay, *, now: float) -> bool:
    """Publish a row that waits in the register, as it stands; tell whether it still waited."""
    row = await register.get(ref)
    if row is None or row.published or row.holder or row.parked or row.throttled:
        return False
    await relay.publish([row], now=now)
    return True


def reference(row: Row) -> str:
    """Return the row's name in the register."""
    return keys.ref(row.tenant, row.id)


def reference_of(message: Message) -> str:
    """Return the name in the register of what ``message`` is about: a request, a step of its plan, or its callback."""
    return keys.ref(message.tenant, row_id_of(message))


def row_id_of(message: Message) -> str:
    """Return the id of the row of ``message``."""
    if message.delivery:
        return keys.delivery_id(message.id, message.revision)
    return keys.row_id(message.id, message.revision, message.step)

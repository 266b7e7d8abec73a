"""From the register to a queue."""

from __future__ import annotations

from tasks import keys
from tasks.contracts.row import Row, Stage
from tasks.stores.broker import Broker, Parcel
from tasks.stores.register import Register


def parcel(row: Row, *, now: float) -> Parcel:
    """Return the message that a row stands for."""
    task = keys.ROUTE_TASK if row.stage is Stage.ROUTE else keys.WORK_TASK
    return Parcel(row.queue, task, keys.ref(row.tenant, row.id), row.message, now)


async def publish_row(ref: str, register: Register, broker: Broker, *, now: float) -> bool:
    """Publish a row that waits in the register, as it stands; tell whether it still waited."""
    row = await register.get(ref)
    if row is None or row.published or row.holder or row.parked:
        return False
    await publish_rows([row], register, broker, now=now)
    return True


async def publish_rows(rows: list[Row], register: Register, broker: Broker, *, now: float) -> None:
    """Publish rows, then mark them. Who dies in between leaves a duplicate, which does no harm."""
    await broker.publish([parcel(row, now=now) for row in rows])
    await register.published([(keys.ref(row.tenant, row.id), row.queue, row.generation) for row in rows], now=now)

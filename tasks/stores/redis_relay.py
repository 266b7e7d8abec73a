"""The relay where register and broker are one Redis-protocol server: each row in one atomic step."""

from __future__ import annotations

from collections.abc import Sequence

from tasks import keys
from tasks.contracts.row import Row
from tasks.errors import LeaseLost
from tasks.stores import scripts
from tasks.stores.broker import Parcel, envelope
from tasks.stores.link import Command, Link
from tasks.stores.register import Handover
from tasks.stores.relay import reference


class RedisRelay:
    """See :class:`tasks.stores.relay.Relay`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def publish(self, rows: Sequence[Row], *, now: float) -> None:
        """See the port."""
        calls: list[tuple[Sequence[str], Command]] = []
        for row in rows:
            ref = reference(row)
            item = envelope(Parcel(row.queue, ref, row.message, now))
            calls.append(
                (
                    [keys.row(ref), keys.UNPUBLISHED, keys.queued(row.queue)],
                    [ref, row.queue, row.generation, repr(now), item],
                )
            )
        await self._link.run_each(scripts.DISPATCH, calls)

    async def hand_over(self, ref: str, holder: str, handover: Handover, *, now: float, due: float) -> None:
        """See the port. It is published at once, so nothing is ever ``due``."""
        item = envelope(Parcel(handover.queue, ref, handover.message, now))
        moved = await self._link.run(
            scripts.HAND_OVER,
            [keys.row(ref), keys.LEASES, keys.UNPUBLISHED, keys.queued(handover.queue)],
            [ref, holder, handover.stage.value, handover.queue, handover.message, repr(now), item],
        )
        if int(moved) < 0:
            raise LeaseLost(f"{ref}: another attempt holds the lease")

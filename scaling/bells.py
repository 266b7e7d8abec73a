"""Wakes the autoscaler: a pool that has no worker need not wait for its next look."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable
from functools import partial
from typing import Self

from tasks.errors import StoreError
from tasks.log import get_logger
from tasks.stores.broker import Broker

log = get_logger()


class Bells:
    """Hears which pools have work that had none.

    As a push scaler of KEDA's does, it hastens the first worker of a pool only: how many there shall be is decided at
    the regular looks. A broker that rings no bell, as SQS, leaves it at these.
    """

    def __init__(self) -> None:
        self._rung: set[str] = set()
        self._any = asyncio.Event()

    @classmethod
    async def listen(cls, broker: Broker, pools: Iterable[str]) -> Self:
        """Return what hears the bells of ``pools`` from now on."""
        bells = cls()
        for pool in pools:
            try:
                await broker.listen(pool, partial(bells._ring, pool))
            except StoreError as error:  # regular looks find work too, and the connection listens once it is made
                log.warning("cannot listen", pool=pool, error=str(error))
        return bells

    async def wait(self, seconds: float, at_zero: Collection[str]) -> bool:
        """Wait ``seconds``; return True sooner where a pool of ``at_zero`` rings or has rung since the last call."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._rung.isdisjoint(at_zero):
                    self._any.clear()
                    await self._any.wait()
        rang = not self._rung.isdisjoint(at_zero)
        self._rung.clear()
        return rang

    def _ring(self, pool: str) -> None:
        self._rung.add(pool)
        self._any.set()

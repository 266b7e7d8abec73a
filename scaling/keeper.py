"""Starts again what died of an embedded stack: a server, the scheduler, the sealer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from tasks.log import get_logger

log = get_logger()

_LOOK_SECONDS: Final = 2.0
_WINDOW_SECONDS: Final = 600.0
_STARTS: Final = 5


class Keeper:
    """``missing`` tells what should run and does not; ``up`` starts it, and may take its time. ``now`` gives seconds.

    What dies again and again is left alone: after five starts in ten minutes somebody has to look.
    """

    def __init__(self, missing: Callable[[], list[str]], up: Callable[[], object], *, now: Callable[[], float]) -> None:
        self._missing = missing
        self._up = up
        self._now = now
        self._starts: list[float] = []

    def look(self) -> None:
        """Look once, and start what is missing."""
        missing, now = self._missing(), self._now()
        self._starts = [time for time in self._starts if time > now - _WINDOW_SECONDS]
        if not missing:
            return
        if len(self._starts) >= _STARTS:
            log.error("the stack does not stay alive, waiting", missing=missing, starts=len(self._starts))
            return
        self._starts.append(now)
        log.error("starting again what died", missing=missing)
        try:
            self._up()
        except Exception:  # tried again at the next look
            log.exception("could not start it again")

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await asyncio.to_thread(self.look)

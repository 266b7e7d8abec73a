"""A circuit breaker: an endpoint that fails again and again is left alone for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import Enum

from tasks.errors import ModelUnavailable
from tasks.log import get_logger
from tasks.settings import BreakerSettings

log = get_logger()


class State(Enum):
    """Closed lets everybody through, open nobody; half-open one, on whose end the others wait."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The breaker of the endpoint ``name``. ``clock`` is in seconds and never goes back."""

    def __init__(self, name: str, settings: BreakerSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._probe: asyncio.Event | None = None

    @property
    def state(self) -> State:
        """Return the state now."""
        if self._open_until is None:
            return State.CLOSED
        return State.OPEN if self._clock() < self._open_until else State.HALF_OPEN

    def check(self) -> None:
        """Raise :class:`ModelUnavailable` where the breaker is open."""
        if self._open_until is None:
            return
        left = self._open_until - self._clock()
        if left > 0:
            raise ModelUnavailable(
                f"{self._name}: not asked, it failed {self._failures} times in a row; next try in {left:.1f} s",
                retry_seconds=left,
            )

    async def enter(self) -> None:
        """Let a request through. Tell afterwards what became of it: succeeded, failed or abandoned.

        Raises:
            ModelUnavailable: the breaker is open, or the one that tried it for all others failed.
        """
        self.check()
        while self._probe:
            await self._probe.wait()
            self.check()
        if self._open_until is not None:
            self._probe = asyncio.Event()

    def succeeded(self) -> None:
        """The endpoint answered, be it to refuse."""
        if self._open_until is not None:
            log.info("model endpoint works again", endpoint=self._name)
        self._failures, self._open_until = 0, None
        self._probed()

    def failed(self) -> None:
        """The endpoint did not answer, or failed."""
        self._failures += 1
        if not self._probe and (self._open_until is not None or self._failures < self._settings.failures):
            return  # too few, or a request from before it opened
        self._open_until = self._clock() + self._settings.open_seconds
        log.warning("model endpoint is left alone", endpoint=self._name, seconds=self._settings.open_seconds)
        self._probed()

    def abandoned(self) -> None:
        """The request was cancelled: it says nothing about the endpoint."""
        self._probed()

    def _probed(self) -> None:
        if self._probe:
            self._probe.set()
            self._probe = None

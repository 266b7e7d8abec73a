"""How fast an endpoint may be asked: token buckets for requests and for tokens, first come, first served."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from tasks.settings import ModelSettings


class Bucket:
    """Fills by ``rate`` a second up to ``size``, and is full at first. Times are seconds of one monotonic clock."""

    def __init__(self, rate: float, size: float, *, now: float) -> None:
        self._rate = rate
        self._size = size
        self._level = size
        self._at = now

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until ``amount`` is there. What is more than the bucket holds needs a full one."""
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, min(amount, self._size) - self._level) / self._rate

    def take(self, amount: float) -> None:
        """Take ``amount`` out, below zero where it is more than there is; put it back where it is negative."""
        self._level -= amount


class Rate:
    """Lets requests to one endpoint through, in the order in which they came, no faster than ``settings`` say.

    Only the first of those who wait has a timer. Who is cancelled leaves the line.
    """

    def __init__(
        self,
        settings: ModelSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._line = asyncio.Lock()
        self._held_until = -math.inf
        now = clock()
        per_second, per_minute = settings.requests_per_second, settings.tokens_per_minute
        self._requests = per_second and Bucket(per_second, settings.burst or math.ceil(per_second), now=now)
        self._tokens = per_minute and Bucket(per_minute / 60, per_minute, now=now)

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how many tokens a request takes."""
        return bool(self._tokens)

    async def take(self, tokens: int) -> None:
        """Wait until a request of about ``tokens`` tokens, prompt and answer, may be sent."""
        if not (self._requests or self._tokens or self._line.locked() or self._held_until > self._clock()):
            return
        async with self._line:
            while (wait := self._wait(tokens)) > 0:
                await self._sleep(wait)
            if self._requests:
                self._requests.take(1)
            if self._tokens:
                self._tokens.take(tokens)

    def settle(self, reserved: int, used: int) -> None:
        """Correct what :meth:`take` took by what the endpoint says was used."""
        if self._tokens:
            self._tokens.take(used - reserved)

    def hold(self, seconds: float) -> None:
        """Let nobody through for ``seconds``: the endpoint asked for it."""
        self._held_until = max(self._held_until, self._clock() + seconds)

    def _wait(self, tokens: int) -> float:
        now = self._clock()
        waits = [self._held_until - now]
        if self._requests:
            waits.append(self._requests.wait(1, now))
        if self._tokens:
            waits.append(self._tokens.wait(tokens, now))
        return max(waits)

"""What every call to a model's endpoint goes through: its rate, its breaker, and a few more tries."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from tasks.agents.models.breaker import Breaker
from tasks.agents.models.rate import Rate
from tasks.errors import ModelError, ModelRefused, ModelUnavailable
from tasks.settings import ModelSettings

T = TypeVar("T")

TRIES: Final = 4
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 20.0
_UNAUTHORISED: Final = {401, 403}
_TEMPORARY: Final = {408, 409, 425, 429}
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500


class Failure(Exception):
    """One try failed, and another may help. ``wait`` is what the endpoint asks for, in seconds.

    ``alive`` means that the endpoint itself works: it is only too busy.
    """

    def __init__(self, problem: str, *, wait: float | None = None, alive: bool = False) -> None:
        super().__init__(problem)
        self.wait = wait
        self.alive = alive


class Upstream:
    """The endpoint of one model, as this process treats it. ``name`` is what errors call it."""

    def __init__(
        self,
        name: str,
        settings: ModelSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.rate = Rate(settings, clock=clock, sleep=sleep)
        self.breaker = Breaker(name, settings.breaker, clock=clock)
        self._key_env = settings.api_key_env
        self._sleep = sleep
        self._jitter = jitter

    async def call(self, send: Callable[[], Awaitable[T]], *, tokens: int = 0) -> T:
        """Return what ``send`` returns. It raises :class:`Failure` where another try may help.

        ``tokens`` is about what prompt and answer take together.

        Raises:
            ModelRefused: from ``send``.
            ModelUnavailable: the endpoint is left alone for now, or asks for a long pause.
            ModelError: it failed, also after a few more tries.
        """
        tries = 0
        while True:
            self.breaker.check()  # not to wait in line for nothing
            await self.rate.take(tokens)
            try:
                return await self._once(send)
            except Failure as failure:
                tries += 1
                await self._sleep(self._pause(failure, tries))

    def refusal(self, status: int, detail: str, headers: Mapping[str, str]) -> Failure:
        """Return the failure that ``status`` means.

        Raises:
            ModelRefused: trying again does not help.
        """
        if status in _UNAUTHORISED:
            # What the endpoint says here quotes parts of the key.
            raise ModelRefused(f"{self.name}: status {status}, the key in {self._key_env} was not accepted")
        problem = f"status {status} {detail}".strip()
        if status not in _TEMPORARY and status < _SERVER_ERROR:
            raise ModelRefused(f"{self.name}: {problem}")
        return Failure(problem, wait=retry_after(headers), alive=status == _TOO_MANY)

    async def _once(self, send: Callable[[], Awaitable[T]]) -> T:
        await self.breaker.enter()
        try:
            answer = await send()
        except (ModelError, Failure) as error:
            if isinstance(error, ModelRefused) or (isinstance(error, Failure) and error.alive):
                self.breaker.succeeded()
            else:
                self.breaker.failed()
            raise
        except BaseException:
            self.breaker.abandoned()
            raise
        self.breaker.succeeded()
        return answer

    def _pause(self, failure: Failure, tries: int) -> float:
        """Return the seconds until the next try; raise where there is none."""
        told = f"{self.name}: {failure}, after {tries} {'tries' if tries > 1 else 'try'}"
        if failure.wait is None:
            if tries == TRIES:
                raise ModelError(told) from failure
            return float(_FIRST_WAIT * 2 ** (tries - 1) * (0.5 + self._jitter()))
        if tries == TRIES or failure.wait > _LONGEST_WAIT:
            raise ModelUnavailable(f"{told}; it asks for {failure.wait:g} s", retry_seconds=failure.wait) from failure
        self.rate.hold(failure.wait)
        return failure.wait + _FIRST_WAIT * self._jitter()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the endpoint asks to wait, from a number or a date."""
    value = headers.get("Retry-After", "")
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None

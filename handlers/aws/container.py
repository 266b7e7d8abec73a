"""What one Lambda container keeps from call to call: the settings, an event loop, and a door that is open on it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from tasks import logs
from tasks.access.redact import Redactor
from tasks.settings import Settings
from tasks.settings_load import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.door import Outcome
    from handlers.opening import OpenDoor
    from tasks.contracts.request import Request

T = TypeVar("T")


class Doors:
    """Doors by name, opened when they are first used, on the running loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stack = AsyncExitStack()
        self._opened: dict[str, OpenDoor] = {}

    async def keep(self, opening: AbstractAsyncContextManager[T]) -> T:
        """Enter ``opening`` and leave it open for the calls to come."""
        return await self._stack.enter_async_context(opening)

    async def door(self, name: str) -> OpenDoor:
        """Return the open door called ``name``."""
        if name not in self._opened:
            from handlers.opening import open_door

            self._opened[name] = await self.keep(open_door(self.settings, name))
        return self._opened[name]

    async def accept(self, name: str, requests: Sequence[Request]) -> list[Outcome]:
        """Accept ``requests`` through the door ``name``, for whom its key stands."""
        opened = await self.door(name)
        return await opened.door.accept(requests, caller=opened.gate.caller())

    async def aclose(self) -> None:
        """Close what is open."""
        await self._stack.aclose()


class Container(Doors):
    """Runs coroutines on one loop. A container is frozen between calls, so nothing is left to run meanwhile."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.loop = asyncio.new_event_loop()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end."""
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        """Close what is open. Lambda never calls it; tests do."""
        self.loop.run_until_complete(self.aclose())
        self.loop.close()


@cache
def container() -> Container:
    """Return this process's container, made at the first call."""
    settings = load()
    logs.configure(settings.log_level, Redactor.of(settings.auditing))
    return Container(settings)

"""Agent types and models change while a worker runs: the settings are read again, and used if they are right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tasks.contracts.audit import Action, Decision, Details, Event
from tasks.errors import InvalidInput
from tasks.log import get_logger
from tasks.settings import Settings
from tasks.settings.base import Contradiction
from tasks.settings_load import Source

log = get_logger()

HOT: Final = ("agents", "models", "model_cache", "default_model", "embedded_patience_seconds")
"""What a running worker takes from a changed file. All else takes a restart."""


class Reload:
    """Reads ``source`` again and gives ``apply`` the new settings; ``report`` hears of it either way.

    A file that is wrong changes nothing; ``apply`` raises :class:`SettingsError` before it changes anything. ``pools``
    are those that must still be there. ``actor`` is who says so.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        *,
        pools: Sequence[str],
        apply: Callable[[Settings], Awaitable[None]],
        report: Callable[[Event], object],
        actor: str,
    ) -> None:
        self._source = source
        self._settings = settings
        self._pools = pools
        self._apply = apply
        self._report = report
        self._actor = actor
        self._turn = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()

    def look(self) -> None:
        """Begin to reload where the file has changed. One ``stat``, for each heartbeat."""
        if self._source.changed():
            self.soon()

    def soon(self) -> None:
        """Begin to reload, whether the file has changed or not: keys may have."""
        task = asyncio.get_running_loop().create_task(self.now(), name="reload")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def now(self) -> None:
        """Read the settings and use them."""
        async with self._turn:
            try:
                # In a thread: a large file takes the YAML parser longer than a loop should stand still.
                read = await asyncio.to_thread(self._source.load)
                hot = self._settings.changed(**{name: getattr(read, name) for name in HOT})
                for pool in self._pools:
                    hot.pool(pool)
                await self._apply(hot)
            except (InvalidInput, Contradiction) as error:
                log.error("settings refused, the old ones stay", error=str(error))  # noqa: TRY400  the user's fault
                self._report(self._event(Action.SETTINGS_REFUSED, reason=str(error)))
                return
            changed = [name for name in HOT if getattr(hot, name) != getattr(self._settings, name)]
            cold = [
                name
                for name in Settings.__struct_fields__
                if name not in HOT and getattr(read, name) != getattr(self._settings, name)
            ]
            self._settings = hot
            facts: Details = {"changed": ", ".join(changed), "needs_restart": ", ".join(cold)}
            log.info("settings reloaded", **facts)
            self._report(self._event(Action.SETTINGS_RELOADED, details=facts))

    async def close(self) -> None:
        """Wait for what has begun."""
        await asyncio.gather(*self._running)

    def _event(self, action: Action, *, reason: str = "", details: Details | None = None) -> Event:
        return Event(
            action=action,
            actor=self._actor,
            tenant="",
            request_id="",
            resource=str(self._source.file or "environment"),
            decision=Decision.DENY if reason else Decision.ALLOW,
            reason=reason,
            details=details or {},
        )

"""The hop of callbacks: tells the URL that a request names how it ended, until somebody takes it or it is given up."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from tasks.access import webhooks
from tasks.attempt import Attempt, Deps
from tasks.contracts.asked import Asked
from tasks.contracts.audit import Action
from tasks.contracts.base import canonical
from tasks.contracts.message import Message
from tasks.contracts.result import ErrorInfo, Result, Status
from tasks.contracts.row import Stage
from tasks.courier import Courier
from tasks.errors import CallbackFailed, StoreError
from tasks.hop import Hop

_LARGE: Final = ("output", "steps")
"""What is left out of a result that is too large for a callback."""


class Deliver(Hop):
    """Sends callbacks, many at a time. ``masters`` are the deployment's secrets; ``chance`` is from 0 to 1."""

    stage = Stage.DELIVER

    def __init__(
        self,
        deps: Deps,
        courier: Courier,
        masters: Sequence[bytes],
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(deps)
        self._courier = courier
        self._masters = masters
        self._chance = chance

    async def attempt(self, attempt: Attempt, request: Asked) -> None:
        """Send the result of the request's revision; it is over once that was taken."""
        message, deps = attempt.message, self.deps
        result = await deps.results.get(message.tenant, message.id, message.revision)
        if result is None or request.callback is None:
            raise StoreError(f"{attempt.ref}: there is nothing to tell, or nobody")
        if not self._masters:
            raise CallbackFailed("callbacks.secrets: there is none to sign with")
        body = spelt(result, deps.settings.callbacks.max_bytes)
        secrets = [webhooks.secret_of(master, message.tenant) for master in self._masters]
        now = deps.now()
        headers = webhooks.headers(webhook_id(message), int(now.timestamp()), body, secrets)
        status = await self._courier.post(request.callback, body, headers, now=now)
        deps.finisher.passed("posted")
        told = self.event(attempt, Action.CALLBACK_DELIVERED, status=status, webhook_id=headers["webhook-id"])
        deps.heartbeat.ending(attempt.id)
        await deps.finisher.settle(message, told)

    async def admitted(self, attempt: Attempt, asked: Asked | None) -> Asked:
        """See :class:`tasks.hop.Hop`. That a grant has expired is no reason to tell nobody: only taking it back is."""
        await self.deps.gate.unrevoked(attempt.grant)
        return asked or await self.read(attempt)

    async def close_standing(self, attempt: Attempt) -> bool:
        """See :class:`tasks.hop.Hop`. A result is what this waits for, and not its end."""
        return False

    def is_overdue(self, message: Message) -> bool:
        """See :class:`tasks.hop.Hop`. The deadline was the request's: that it has passed is told too."""
        return False

    @property
    def attempts(self) -> int:
        """See :class:`tasks.hop.Hop`."""
        return self.deps.settings.callbacks.attempts

    def pause(self, attempt: Attempt, error: Exception) -> float:
        """See :class:`tasks.hop.Hop`. Those that failed together do not all come back together."""
        callbacks = self.deps.settings.callbacks
        pause = callbacks.pause(attempt.number) * (0.75 + self._chance() / 4)
        asked = error.retry_seconds if isinstance(error, CallbackFailed) else 0.0
        return max(pause, min(asked, callbacks.max_retry_seconds))

    async def end(self, attempt: Attempt, status: Status, error: ErrorInfo) -> None:
        """See :class:`tasks.hop.Hop`: it is given up. The request's result stands as it is."""
        reason = f"{error.code}: {self.deps.redact(error.message)}"
        self.deps.heartbeat.ending(attempt.id)
        await self.deps.finisher.give_up(attempt.message, self.event(attempt, Action.CALLBACK_FAILED, reason=reason))


def webhook_id(message: Message) -> str:
    """Return what is the same for each try at one callback, and for no other."""
    return f"{message.tenant}/{message.id}.r{message.revision}"


def spelt(result: Result, most: int) -> bytes:
    """Return the result's JSON; over ``most`` bytes without its output and its steps, and marked as ``truncated``."""
    whole = result.to_bytes()
    if len(whole) <= most:
        return whole
    head = {name: value for name, value in result.to_dict().items() if name not in _LARGE}
    return canonical({**head, "truncated": True})

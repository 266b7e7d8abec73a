"""Calls that change something: begun durably, made at most once, answered from the journal when an attempt is retried.

The calls of a tool with the same arguments are counted within an attempt: the second one is made on purpose, so it is
a call of its own, also on a retry. A call that failed before it did anything is passed over there and made anew.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from tasks.agents.tools.base import Effect
from tasks.agents.types import Journal
from tasks.contracts.journal import CallOutcome, JournalKey, Scope
from tasks.errors import CallInDoubt, StoreError, ToolError, ToolFailed, ToolUncertain
from tasks.log import get_logger

log = get_logger()

_DOUBT: Final = (
    "{tool}: a call that must not be repeated was begun and its end is unknown; "
    "see journal/ in the data bucket, and whether it was done"
)


class Made(NamedTuple):
    """What the agent reads, and whether an earlier attempt made the call."""

    text: str
    replayed: bool = False


class Once:
    """The calls of one attempt at ``scope``. Without a ``journal`` a retry repeats them."""

    def __init__(self, journal: Journal | None, scope: Scope) -> None:
        self._journal = journal
        self._scope = scope
        self._made: Counter[tuple[str, str]] = Counter()
        self._past: dict[JournalKey, bool] | None = None
        self._reading = asyncio.Lock()
        self._doubtful = ""

    async def call(self, tool: str, digest: str, effect: Effect, make: Callable[[str], Awaitable[str]]) -> Made:
        """Make a call by ``make``, which gets the idempotency key, unless an earlier attempt has made it.

        Raises:
            CallInDoubt: a call of this scope that must not be repeated was begun, and its end is unknown.
            ToolError: as ``make`` raises it.
            StoreError: the journal does not answer; nothing was called.
        """
        if effect is Effect.READ:
            return Made(await make(""))
        if self._journal is None:
            return Made(await make(self._next(tool, digest).idempotency_key))
        past = await self._read(self._journal)
        while True:
            key = self._next(tool, digest)
            outcome = await self._journal.outcome(key) if past.get(key) else None
            if outcome is None and effect is Effect.ONCE:
                outcome = await self._begin(self._journal, key)
            if outcome is None:
                return Made(await self._make(self._journal, key, effect, make))
            if outcome.ok:
                return Made(outcome.text, replayed=True)
            if not outcome.nothing_done:
                raise ToolFailed(outcome.text)

    def _next(self, tool: str, digest: str) -> JournalKey:
        self._made[tool, digest] += 1
        return JournalKey(self._scope, tool, digest, self._made[tool, digest])

    async def _read(self, journal: Journal) -> dict[JournalKey, bool]:
        async with self._reading:
            if self._past is None:
                self._past = await journal.calls(self._scope)
                begun = [key.tool for key, ended in self._past.items() if not ended]
                self._doubtful = begun[0] if begun else ""
            return self._past

    async def _begin(self, journal: Journal, key: JournalKey) -> CallOutcome | None:
        # Whatever its arguments are: a model that is asked again may word the same wish in another way.
        if self._doubtful:
            raise CallInDoubt(_DOUBT.format(tool=self._doubtful))
        return await journal.begin(key)

    async def _make(
        self, journal: Journal, key: JournalKey, effect: Effect, make: Callable[[str], Awaitable[str]]
    ) -> str:
        try:
            text = await make(key.idempotency_key)
        except BaseException as error:
            if effect is Effect.ONCE:
                await self._failed(journal, key, error)
            raise
        await self._end(journal, key, CallOutcome(text=text))
        return text

    async def _failed(self, journal: Journal, key: JournalKey, error: BaseException) -> None:
        """Only a tool's own word counts for how it ended."""
        if isinstance(error, ToolError) and not isinstance(error, ToolUncertain):
            nothing_done = not isinstance(error, ToolFailed)
            await self._end(journal, key, CallOutcome(ok=False, text=str(error), nothing_done=nothing_done))
        else:
            self._doubtful = key.tool

    async def _end(self, journal: Journal, key: JournalKey, outcome: CallOutcome) -> None:
        try:
            await journal.end(key, outcome)
        except StoreError as error:
            # It was made, and this attempt knows how it ended. Only a retry would not, and that one does not repeat it.
            log.warning("the end of a tool call is not on record", tool=key.tool, reason=str(error))

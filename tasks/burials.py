"""What the broker itself put with the dead letters: it had delivered it too often, and its workers had died each time.

SQS does this. The register knows nothing of it, and where the queue is never empty nothing looks lost: without this the
request would stay open for ever. The tail's own letters are left alone: those requests have ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import orjson

from tasks import keys
from tasks.access.gate import Gate
from tasks.contracts.base import canonical, parse_versioned
from tasks.contracts.message import Message
from tasks.contracts.result import ErrorInfo, Status
from tasks.contracts.row import Row
from tasks.errors import MalformedMessage, NewerSchema
from tasks.finish import EXHAUSTED
from tasks.log import get_logger
from tasks.stores.broker import Broker, Letter, opened
from tasks.stores.register import Register
from tasks.stores.relay import reference_of
from tasks.stores.results import ResultStore

log = get_logger()

End = Callable[[Row, Status, ErrorInfo], Awaitable[bool]]
"""Ends a request that no attempt holds; tells whether it was ended."""

_MOST: Final = 500
"""Letters that one pass looks at."""


class Burials:
    """Finds buried messages whose requests are open, and has them ended as ``failed``, which writes their letters."""

    def __init__(self, broker: Broker, register: Register, results: ResultStore, gate: Gate, end: End) -> None:
        self._broker = broker
        self._register = register
        self._results = results
        self._gate = gate
        self._end = end
        self._known = 0

    async def look(self) -> int:
        """Look at the letters, if there are others than last time; return how many requests were ended."""
        if not self._broker.buries or await self._broker.length(keys.DEAD_LETTERS) == self._known:
            return 0
        letters = await self._broker.letters(keys.DEAD_LETTERS, _MOST)
        gone: list[str] = []
        dead: set[tuple[str, int]] = set()
        ended = 0
        try:
            for letter in letters:
                is_open, is_over = await self._judge(letter, dead)
                ended += is_open and is_over
                gone += [letter.tag] * is_over
        finally:
            await self._broker.remove(keys.DEAD_LETTERS, gone)
            left = [letter.tag for letter in letters if letter.tag not in gone]
            await self._broker.leave(keys.DEAD_LETTERS, left)
        # The requests that were ended have letters of the tail's now.
        self._known = len(left) + ended
        return ended

    async def _judge(self, letter: Letter, dead: set[tuple[str, int]]) -> tuple[bool, bool]:
        """Tell whether the letter's request was open, and whether nobody needs the letter any more.

        ``dead`` are the revisions that have a letter, to which this one's may be added.
        """
        raw = opened(letter.data)
        try:
            message = parse_versioned(Message, raw)
            self._gate.verify(message)
            text = canonical(raw).decode()
        except (MalformedMessage, NewerSchema, orjson.JSONEncodeError, RecursionError):
            return False, False
        # The row first: it is removed after the result was written, so one of them is always there.
        row = await self._register.get(reference_of(message))
        if row is None or row.revision > message.revision:
            return False, await self._is_copy(message, dead)
        if row.message != text or not row.published or row.parked:
            return False, True  # a copy that was left behind: the request is elsewhere, or goes to its queue again
        if row.holder:
            return True, False
        log.warning("buried by the broker", request_id=message.id, tenant=message.tenant, attempts=row.attempts)
        error = ErrorInfo(code=EXHAUSTED, message="the broker delivered it too often", attempts=row.attempts)
        return True, await self._end(row, Status.FAILED, error)

    async def _is_copy(self, message: Message, dead: set[tuple[str, int]]) -> bool:
        """Tell whether the request has another letter, or a result that made none: then this is only a copy."""
        revision = (reference_of(message), message.revision)
        if revision in dead:
            return True
        result = await self._results.get(message.tenant, message.id, message.revision, message.step)
        if result is None or message.delivery:
            is_copy = False  # the register lost it, and a redrive says so; or it is a callback that was given up
        else:
            is_copy = message.step is not None or result.error is None or result.error.code != EXHAUSTED
        if not is_copy:
            dead.add(revision)
        return is_copy

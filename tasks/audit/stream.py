"""A worker's audit stream: records chained by hash, written in segments, many to one write (group commit).

A record gets its place in the chain when it is reported. It is durable when the segment that holds it is created;
:meth:`AuditStream.commit` waits for that. Segments are create-only and never rewritten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, cast

from tasks import keys
from tasks.contracts.audit import GENESIS, AuditRecord, Details, Event
from tasks.contracts.base import sha256
from tasks.errors import AlreadyExists, StoreError
from tasks.log import get_logger
from tasks.stores.objects import ObjectStore

log = get_logger()

MAX_SEGMENT_RECORDS: Final = 2000
_SPACING_SECONDS: Final = 0.02
_MOST_SPACING_SECONDS: Final = 0.05
_CROWD_SECONDS: Final = 0.003
"""From one segment to the next, at least and at most, and for each commit that shared the last one."""
_CLOSE_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = (0.1, 0.3, 1.0, 3.0)


class _Line(NamedTuple):
    """A record that is not durable yet, spelt once: these bytes are hashed and written."""

    sequence: int
    time: datetime
    line: bytes


class AuditStream:
    """One chain. Not shared between event loops. ``redact`` sees reasons and details before the chain does."""

    def __init__(
        self,
        name: str,
        store: ObjectStore,
        *,
        redact: Callable[[object], object],
        now: Callable[[], datetime],
        flush_seconds: float,
    ) -> None:
        self.name = name
        self._store = store
        self._redact = redact
        self._now = now
        self._flush_seconds = flush_seconds
        self._previous = GENESIS
        self._sequence = 0
        self._pending: list[_Line] = []
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._written = 0
        self._wrote_at = float("-inf")
        self._crowd = 0
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def report(self, event: Event) -> AuditRecord:
        """Chain ``event`` now; it becomes durable within ``flush_seconds`` or with the next commit."""
        record = AuditRecord(
            action=event.action,
            actor=event.actor,
            tenant=event.tenant,
            request_id=event.request_id,
            resource=event.resource,
            decision=event.decision,
            # Ids and keys say whose record it is; what people and programs wrote freely is in these two.
            reason=cast("str", self._redact(event.reason)),
            details=cast("Details", self._redact(event.details)),
            time=self._now(),
            stream=self.name,
            sequence=self._sequence,
            previous=self._previous,
        )
        line = record.to_bytes()
        self._previous = sha256(line)
        self._sequence += 1
        self._pending.append(_Line(record.sequence, record.time, line))
        if self._task is None:
            self._task = asyncio.create_task(self._write_forever(), name="audit")
        return record

    async def commit(self, events: Sequence[Event] = (), *, timeout: float | None = None) -> None:
        """Report ``events`` and wait until they and all records before them are durable.

        Raises:
            StoreError: they are not after ``timeout`` seconds. They will be written all the same once it is possible.
        """
        for event in events:
            self.report(event)
        target = self._sequence
        if self._written >= target:
            return
        durable = asyncio.get_running_loop().create_future()
        self._waiting.append((target, durable))
        self._urgent.set()
        if timeout is None:
            await durable
            return
        try:
            async with asyncio.timeout(timeout):
                await durable
        except TimeoutError as error:
            raise StoreError(f"audit: records not durable after {timeout:g} s") from error

    async def close(self) -> None:
        """Write what is pending and stop."""
        if self._task is None:
            return
        try:
            await self.commit(timeout=_CLOSE_SECONDS)
        except StoreError:
            # The only copy that will be left of them.
            left = [pending.line.decode() for pending in self._pending]
            log.exception("audit records not written", stream=self.name, records=left)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def _write_forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), self._flush_seconds)
            if patience := self._patience():
                await asyncio.sleep(patience)
            self._urgent.clear()
            if self._pending:
                await self._write_segment()
            if self._waiting or len(self._pending) >= MAX_SEGMENT_RECORDS:
                self._urgent.set()

    def _patience(self) -> float:
        """Return for how many seconds the next segment waits for more records.

        Counted from the end of the last one; the longer, the more commits shared that. A crowd means a queue, in which
        everybody waits for the store's next free moment anyhow: fewer writes leave it more of them.
        """
        spacing = min(max(_SPACING_SECONDS, self._crowd * _CROWD_SECONDS), _MOST_SPACING_SECONDS)
        return max(self._wrote_at + spacing - asyncio.get_running_loop().time(), 0.0)

    async def _write_segment(self) -> None:
        batch = self._pending[:MAX_SEGMENT_RECORDS]
        data = b"".join(pending.line + b"\n" for pending in batch)
        key = keys.segment(self.name, batch[0].sequence, batch[0].time)
        attempt = 0
        while True:
            try:
                await self._store.create(key, data)
                break
            except AlreadyExists:
                # The stream's name is this process's own: what is there is this very segment, from a write whose
                # answer was lost.
                break
            except Exception as error:  # noqa: BLE001  a writer that ends leaves everybody waiting for ever
                # Never dropped: whoever waits for these records keeps waiting, and so keeps its message.
                delay = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
                attempt += 1
                log.warning("audit segment not written, trying again", key=key, error=str(error), in_seconds=delay)
                await asyncio.sleep(delay)
        del self._pending[: len(batch)]
        self._written += len(batch)
        self._wrote_at = asyncio.get_running_loop().time()
        self._crowd = 0
        while self._waiting and self._waiting[0][0] <= self._written:
            _, durable = self._waiting.popleft()
            if not durable.done():
                durable.set_result(None)
                self._crowd += 1

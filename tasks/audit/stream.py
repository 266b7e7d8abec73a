"""A worker's audit stream: records chained by hash, written in segments, many to one write (group commit).

A record gets its place in the chain when it is reported. It is durable when the segment that holds it is created;
:meth:`AuditStream.commit` waits for that. Segments are create-only and never rewritten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import structlog

from tasks import keys
from tasks.contracts.audit import GENESIS, AuditRecord, Event
from tasks.errors import AlreadyExists, StoreError
from tasks.stores.objects import ObjectStore

log = structlog.get_logger()

MAX_SEGMENT_RECORDS: Final = 2000
_CLOSE_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = (0.1, 0.3, 1.0, 3.0)


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
        self._pending: list[AuditRecord] = []
        self._durable = asyncio.Condition()
        self._written = 0
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def report(self, event: Event) -> AuditRecord:
        """Chain ``event`` now; it becomes durable within ``flush_seconds`` or with the next commit."""
        said = event.model_dump(mode="json")
        # Ids and keys say whose record it is; what people and programs wrote freely is in these two.
        free = {"reason": self._redact(said["reason"]), "details": self._redact(said["details"])}
        place = {"stream": self.name, "sequence": self._sequence, "previous": self._previous}
        record = AuditRecord.model_validate({**said, **free, **place, "time": self._now()})
        self._previous = record.hash()
        self._sequence += 1
        self._pending.append(record)
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
        self._urgent.set()
        try:
            async with asyncio.timeout(timeout), self._durable:
                await self._durable.wait_for(lambda: self._written >= target)
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
            left = [record.to_bytes().decode() for record in self._pending]
            log.exception("audit records not written", stream=self.name, records=left)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def _write_forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), self._flush_seconds)
            self._urgent.clear()
            while self._pending:
                await self._write_segment()

    async def _write_segment(self) -> None:
        batch = self._pending[:MAX_SEGMENT_RECORDS]
        data = b"".join(record.to_bytes() + b"\n" for record in batch)
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
        async with self._durable:
            del self._pending[: len(batch)]
            self._written += len(batch)
            self._durable.notify_all()

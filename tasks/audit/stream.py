"""A worker's audit stream: records chained by hash, written in segments, many to one write (group commit).

A record gets its place in the chain when it is reported. It is durable when the segment that holds it is created;
:meth:`AuditStream.commit` waits for that. Segments are create-only, signed and never rewritten.

The sealer looks for segments near the time in their keys, and closes streams that are idle for long. So a process that
was idle, or could not write, goes on in a new stream: what it says after that would be taken for inserted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, Final, NamedTuple, cast

from tasks import keys
from tasks.audit import segment
from tasks.audit.ledger import GIVE_UP, ROTATE
from tasks.contracts.audit import GENESIS, Action, AuditRecord, Details, Event
from tasks.contracts.base import sha256
from tasks.contracts.words import new_id
from tasks.errors import AlreadyExists, StoreError
from tasks.log import get_logger
from tasks.stores.objects import ObjectStore, get_at_most

log = get_logger()

NOBODY: Final = "-"
"""The tenant and the request of what concerns none."""
MAX_SEGMENT_RECORDS: Final = 2000
MAX_SEGMENT_BYTES: Final = 4 * 1024 * 1024
"""Of records. Well below what a verifier accepts."""
_MOST_LINE: Final = 64 * 1024
_MOST_TEXT: Final = 8192
"""Bytes of a record above which its texts are cut, and characters that are kept of each."""
_SPACING_SECONDS: Final = 0.02
_MOST_SPACING_SECONDS: Final = 0.05
_CROWD_SECONDS: Final = 0.003
"""From one segment to the next, at least and at most, and for each commit that shared the last one."""
_CLOSE_SECONDS: Final = 2.0
_PUT_SECONDS: Final = 30.0
"""One attempt to write a segment. It must not arrive long after it was given up."""
_RETRY_SECONDS: Final = (0.1, 0.3, 1.0, 3.0)


class _Line(NamedTuple):
    """A record that is not durable yet, spelt once: these bytes are hashed and written."""

    record: AuditRecord
    line: bytes


class _Packed(NamedTuple):
    """A segment on its way."""

    key: str
    data: bytes
    time: datetime
    records: int


class AuditStream:
    """One chain, or one after another. Not shared between event loops.

    ``component`` is the pool (or pools, by ``+``), ``door``, ``sweeper`` or ``sealer``; ``boot`` makes ids. ``redact``
    sees reasons and details before the chain does; ``observe`` sees each record. ``signer`` signs the segments: it may
    sign for the component.
    """

    def __init__(
        self,
        component: str,
        store: ObjectStore,
        *,
        host: str,
        signer: segment.Signer,
        redact: Callable[[object], object],
        now: Callable[[], datetime],
        flush_seconds: float,
        boot: Callable[[], str] = new_id,
        observe: Callable[[AuditRecord], None] = lambda _record: None,
    ) -> None:
        self._component = component
        self._host = host
        self._store = store
        self._signer = signer
        self._redact = redact
        self._now = now
        self._flush_seconds = flush_seconds
        self._boot = boot
        self._observe = observe
        self._pending: list[_Line] = []
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._reported = 0
        self._written = 0
        self._wrote_at = float("-inf")
        self._crowd = 0
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._begin()

    def _begin(self) -> None:
        """Begin a chain; what is pending goes over to it."""
        self.name = keys.stream(self._component, self._host, self._boot())
        self._alive = self._now()
        self._sequence = 0
        self._previous = GENESIS
        moved, self._pending = self._pending, []
        for pending in moved:
            self._chain(pending.record)

    def report(self, event: Event) -> AuditRecord:
        """Chain ``event`` now; it becomes durable within ``flush_seconds`` or with the next commit."""
        if not self._pending and self._now() - self._alive > ROTATE:
            self._begin()
        record = self._chain(self._record(event))
        self._reported += 1
        if self._task is None:
            self._task = asyncio.create_task(self._write_forever(), name="audit")
        self._observe(record)
        return record

    def _record(self, event: Event) -> AuditRecord:
        return AuditRecord(
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

    def _chain(self, record: AuditRecord) -> AuditRecord:
        """Put ``record`` at the end of the chain."""
        if record.sequence != self._sequence or record.stream != self.name:
            record = record.changed(stream=self.name, sequence=self._sequence, previous=self._previous)
        try:
            line = record.to_bytes()
        except TypeError:
            # Half a surrogate pair, as a model's answer may have it: no UTF-8. The record counts more than the letter.
            record = _plain(record)
            line = record.to_bytes()
        if len(line) > _MOST_LINE:
            record = _plain(record)
            line = record.to_bytes()
        self._previous = sha256(line)
        self._sequence += 1
        self._pending.append(_Line(record, line))
        return record

    async def commit(self, events: Sequence[Event] = (), *, timeout: float | None = None) -> None:
        """Report ``events`` and wait until they and all records before them are durable.

        Raises:
            StoreError: they are not after ``timeout`` seconds. They will be written all the same once it is possible.
        """
        for event in events:
            self.report(event)
        target = self._reported
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
        """Close the stream with a record that says so, write what is pending and stop."""
        if self._task is None:
            return
        closed = Event(
            action=Action.STREAM_CLOSED,
            actor=f"{self._component}@{self._host}",
            tenant=NOBODY,
            request_id=NOBODY,
            resource=self.name,
        )
        idle = not self._pending and self._is_stale(None)  # the sealer sees to it
        try:
            await self.commit([] if idle else [closed], timeout=_CLOSE_SECONDS)
        except StoreError:
            # The only copy that will be left of them.
            left = [pending.line.decode() for pending in self._pending]
            log.exception("audit records not written", stream=self.name, records=left)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        self._begin()

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
        attempt = 0
        packed: _Packed | None = None
        while True:
            if self._is_stale(packed):
                self._begin()
                packed = None
            packed = packed or self._pack()
            key = packed.key
            try:
                async with asyncio.timeout(_PUT_SECONDS):
                    is_there = await self._created(packed)
                if is_there:
                    break
                log.error("audit: somebody else's object lies where a segment belongs", key=key)
                self._begin()
                packed = None
            except Exception as error:  # noqa: BLE001  a writer that ends leaves everybody waiting for ever
                # Never dropped: whoever waits for these records keeps waiting, and so keeps its message.
                delay = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
                attempt += 1
                log.warning("audit segment not written, trying again", key=key, error=str(error), in_seconds=delay)
                await asyncio.sleep(delay)
        self._wrote(packed)

    async def _created(self, packed: _Packed) -> bool:
        """Write a segment; tell whether it is there. What is there already may be ours: an answer was lost."""
        try:
            await self._store.create(packed.key, packed.data)
        except AlreadyExists:
            return await get_at_most(self._store, packed.key, len(packed.data)) == packed.data
        return True

    def _is_stale(self, packed: _Packed | None) -> bool:
        """Tell whether the sealer may no longer wait for this segment, or for this stream."""
        now = self._now()
        return now - self._alive > ROTATE or (packed is not None and now - packed.time > GIVE_UP)

    def _pack(self) -> _Packed:
        sizes = accumulate(len(pending.line) for pending in self._pending[:MAX_SEGMENT_RECORDS])
        batch = self._pending[: max(sum(size <= MAX_SEGMENT_BYTES for size in sizes), 1)]
        first, now = batch[0].record, self._now()
        data = segment.pack(
            [pending.line for pending in batch],
            stream=self.name,
            first=first.sequence,
            previous=first.previous,
            time=now,
            signer=self._signer,
        )
        return _Packed(keys.segment(self.name, first.sequence, now), data, now, len(batch))

    def _wrote(self, packed: _Packed) -> None:
        del self._pending[: packed.records]
        self._written += packed.records
        self._alive = self._now()
        self._wrote_at = asyncio.get_running_loop().time()
        self._crowd = 0
        while self._waiting and self._waiting[0][0] <= self._written:
            _, durable = self._waiting.popleft()
            if not durable.done():
                durable.set_result(None)
                self._crowd += 1


def _plain(record: AuditRecord) -> AuditRecord:
    """Return ``record`` with ``?`` for whatever is no Unicode, and of each long text the beginning.

    No caller, whatever it was given to say, may make records that cannot be written, or that no verifier accepts.
    """

    def plain(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = value.encode("utf-8", "replace").decode()
        return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"

    texts = ("actor", "tenant", "request_id", "resource", "reason")
    details = {plain(name): plain(value) for name, value in record.details.items()}
    return record.changed(details=details, **{name: plain(getattr(record, name)) for name in texts})

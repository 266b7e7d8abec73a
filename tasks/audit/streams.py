"""Check segments as the continuations of their streams: what was sealed, and what came after the last checkpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from tasks import keys
from tasks.audit.check import Checked, read_checked, unsealed
from tasks.audit.faults import MOST_FAULTS, Fault, Kind, Verification
from tasks.audit.ledger import LOOK_BACK, Leaf, Mark, State
from tasks.audit.note import Checkpoint
from tasks.audit.segment import Ring
from tasks.contracts.audit import GENESIS
from tasks.stores.objects import ReadableStore


class Streams:
    """Reads segments and adds what is wrong with them to ``report``.

    What was sealed before ``expired_before`` may be gone by retention.
    """

    def __init__(
        self, store: ReadableStore, ring: Ring, report: Verification, *, expired_before: datetime | None
    ) -> None:
        self._store = store
        self._ring = ring
        self._report = report
        self._expired_before = expired_before
        self._absent: dict[str, list[Fault]] = defaultdict(list)

    # What a checkpoint sealed -----------------------------------------------------------------------

    async def sealed(
        self, leaves: list[Leaf], state: State | None, found: Checkpoint, progress: Callable[[int], None]
    ) -> None:
        """Check what ``found`` sealed, as the continuation of ``state``; without that each segment by itself."""
        marks = dict(state.marks) if state else None
        done = 0
        async for leaf, result in read_checked(self._store, self._ring, leaves):
            done += 1
            _, stream, first = keys.parse_segment(leaf.key)
            if result is None:
                self._gone(leaf)
            else:
                self._read(stream, result)
                self._judge(leaf, result, found)
            if marks is not None:
                self._follows(leaf, result, marks.get(stream))
                closed = "stream" if leaf.closed else ""
                marks[stream] = Mark(
                    stream=stream, next=first + leaf.count, last=leaf.last, seen=found.time, closed=closed
                )
            if not done % 64:
                progress(done)
        progress(done)

    def _judge(self, leaf: Leaf, result: Checked, found: Checkpoint) -> None:
        if result.kind is not None:
            self._broken(leaf.key, result)
        elif (result.records, result.last, result.closed) != (leaf.count, leaf.last, leaf.closed):
            name = keys.leaves(found.number, found.leaves)
            self._report.add(Fault(Kind.ALTERED, name, f"what it says of {leaf.key} is not what that holds"))

    def _follows(self, leaf: Leaf, result: Checked | None, mark: Mark | None) -> None:
        """Check that a sealed segment is the next of its stream."""
        _, stream, first = keys.parse_segment(leaf.key)
        following, last = (mark.next, mark.last) if mark else (0, GENESIS)
        if mark and mark.closed:
            self._fault(Kind.INSERTED, leaf.key, "it comes after its stream was closed", stream, first)
        elif first < following:
            self._fault(Kind.FORKED, leaf.key, "its records are sealed already, in another segment", stream, first)
        elif first > following:
            reason = f"records {following} to {first - 1} were not there when it was sealed"
            self._fault(Kind.MISSING, leaf.key, reason, stream, following)
        elif result is not None and result.kind is None and result.previous != last:
            self._fault(Kind.FORKED, leaf.key, "it follows another record than was sealed before it", stream, first)

    # What is not there ------------------------------------------------------------------------------------

    def _gone(self, leaf: Leaf) -> None:
        time, stream, first = keys.parse_segment(leaf.key)
        if self._expired_before is not None and time < self._expired_before:
            self._report.expired += 1
            return
        fault = Fault(Kind.MISSING, leaf.key, f"{leaf.count} sealed records are not there", stream, first)
        if self._report.found > MOST_FAULTS:
            self._report.add(fault)
        else:
            # Its kind depends on whether anything of its stream follows.
            self._absent[stream].append(fault)

    def _read(self, stream: str, result: Checked) -> None:
        self._report.segments += 1
        self._report.records += result.records
        for fault in self._absent.pop(stream, ()):
            self._report.add(fault)

    def truncated(self) -> None:
        """Say, at the end, which streams lack their tails, or are gone as a whole."""
        for faults in self._absent.values():
            whole = faults[0].sequence == 0
            for fault in faults:
                self._report.add(fault if whole else replace(fault, kind=Kind.TRUNCATED))
        self._absent.clear()

    # What no checkpoint has -------------------------------------------------------------------------------

    def inserted(self, key: str, reason: str) -> None:
        """Say that ``key`` should not be there."""
        try:
            _, stream, first = keys.parse_segment(key)
        except ValueError as error:
            self._report.add(Fault(Kind.INSERTED, key, str(error)))
            return
        self._fault(Kind.INSERTED, key, reason, stream, first)

    async def unsealed(self, names: Sequence[str], state: State | None) -> None:
        """Check what came after the last checkpoint, as the continuation of ``state``."""
        streams: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for key in names:
            try:
                _, stream, first = keys.parse_segment(key)
            except ValueError as error:
                self._report.add(Fault(Kind.INSERTED, key, str(error)))
                continue
            streams[stream].append((first, key))
        for stream in sorted(streams):
            mark = state.marks.get(stream) if state else None
            await self._continue(stream, [key for _, key in sorted(streams[stream])], mark, known=state is not None)

    async def _continue(
        self, stream: str, names: list[str], mark: Mark | None, *, known: bool = True, look: bool = True
    ) -> tuple[int, str]:
        """Check ``names`` after ``mark``; return the next sequence number and the last hash. ``look`` for late ones."""
        following, last = (mark.next, mark.last) if mark else (0, GENESIS)
        closed = bool(mark and mark.closed)
        async for leaf, result in read_checked(self._store, self._ring, list(map(unsealed, names))):
            if result is None:
                continue  # taken away since it was listed
            self._report.unsealed += 1
            self._read(stream, result)
            first = keys.parse_segment(leaf.key).first
            if result.kind is not None:
                self._broken(leaf.key, result, sealed=False)
                continue
            if closed:
                self.inserted(leaf.key, "it comes after its stream was closed")
                continue
            if known and first < following:
                self.inserted(leaf.key, "a second segment of records that are there already")
                continue
            if known and first > following and look:
                late = await self._late(stream, leaf.key, range(following, first))
                following, last = await self._continue(stream, late, _at(stream, leaf.key, following, last), look=False)
            if known:
                self._continues(leaf.key, result, following, last)
            following, last, known, closed = first + result.records, result.last, True, result.closed
        return following, last

    async def _late(self, stream: str, key: str, wanted: range) -> list[str]:
        """Return the segments between that were written, in a bucket in use, just after their place was listed."""
        after = keys.segment_after(keys.parse_segment(key).time - LOOK_BACK)
        listed = self._store.list(keys.AUDIT_PREFIX, after=after)
        return [name async for name in listed if _first(name, stream) in wanted]

    def _continues(self, key: str, result: Checked, following: int, last: str) -> None:
        _, stream, first = keys.parse_segment(key)
        if first > following:
            reason = f"records {following} to {first - 1} are not there"
            self._fault(Kind.MISSING, key, reason, stream, following)
        elif result.previous != last:
            self._fault(Kind.ALTERED, key, "the record before it was altered or replaced", stream, first)

    def _broken(self, key: str, result: Checked, *, sealed: bool = True) -> None:
        kind = result.kind or Kind.ALTERED
        if kind is Kind.REORDERED and not sealed:
            kind = Kind.INSERTED
        self._fault(kind, key, result.reason, keys.parse_segment(key).stream, result.sequence)

    def _fault(self, kind: Kind, name: str, reason: str, stream: str, sequence: int | None) -> None:
        self._report.add(Fault(kind, name, reason, stream, sequence))


def _at(stream: str, key: str, following: int, last: str) -> Mark:
    return Mark(stream=stream, next=following, last=last, seen=keys.parse_segment(key).time)


def _first(key: str, stream: str) -> int:
    """Return the first sequence number of a segment of ``stream``, -1 for any other object."""
    try:
        _, found, first = keys.parse_segment(key)
    except ValueError:
        return -1
    return first if found == stream else -1

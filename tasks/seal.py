"""The sealer: at every period one checkpoint over the segments that are new, and over the streams that ended.

Several sealers may run: each checkpoint is created once, and who loses begins again with the winner's.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from msgspec import Struct

from tasks import keys
from tasks.audit import ledger, note, segment
from tasks.audit.ledger import Leaf, Mark, State
from tasks.audit.note import Checkpoint
from tasks.audit.stream import NOBODY, AuditStream
from tasks.audit.witness import Witness
from tasks.contracts.audit import GENESIS, Action, Decision, Event
from tasks.contracts.base import sha256
from tasks.errors import AlreadyExists, IntegrityError, NotFound, SluiceError
from tasks.log import get_logger
from tasks.stores.objects import ObjectStore, get_at_most

log = get_logger()

ACTOR: Final = "sealer"
HOLD: Final = timedelta(minutes=2)
"""For so long a segment waits for the one before it. Less than the time that the sealer looks back."""
MOST_LEAVES: Final = 100_000
"""Segments in one checkpoint. What is left comes with the next, at once."""
_READS_AT_ONCE: Final = 32
_START: Final = "0" * 64


class Sealed(Struct, frozen=True):
    """A new checkpoint. ``segments`` are its own, ``size`` is the tree's; ``closed`` streams were idle for too long.

    ``complete`` tells whether it has all that was there; else the next one is due at once.
    """

    number: int
    segments: int
    size: int
    closed: int
    complete: bool


class _Base(NamedTuple):
    """The checkpoint to go on from; ``number`` is -1 before the first."""

    number: int
    time: datetime | None
    digest: str
    state: State


class _New(NamedTuple):
    """A segment that no checkpoint has."""

    key: str
    time: datetime
    first: int


class Sealer:
    """One pass at a time. ``origin`` names the ledger in its checkpoints; ``period`` is the time between two."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        signer: segment.Signer,
        ring: segment.Ring,
        origin: str,
        period: timedelta,
        audit: AuditStream,
        now: Callable[[], datetime],
        witness: Witness | None = None,
    ) -> None:
        self._store = store
        self._signer = signer
        self._ring = ring
        self._origin = origin
        self._period = period
        self._audit = audit
        self._now = now
        self._witness = witness
        self._base: _Base | None = None
        self._witnessed: int | None = None
        self._told: set[str] = set()
        # What is broken by itself stays so. Read and counted again in each pass, enough of it would leave no room in a
        # checkpoint for anything else.
        self._refused: set[str] = set()

    async def run_once(self, *, force: bool = False) -> Sealed | None:
        """Write the next checkpoint; None where it is not due yet (unless ``force``), or another sealer was first.

        Raises:
            IntegrityError: the newest checkpoint does not hold, or one is missing: a ledger is not continued on that.
        """
        try:
            base = await self._current()
        except IntegrityError as error:
            self._tell(keys.CHECKPOINTS, f"not continued: {error}")
            raise
        now = _to_millisecond(self._now())
        due = force or base.time is None or now - base.time >= self._period
        sealed = await self._seal(base, now if base.time is None else max(now, base.time)) if due else None
        await self._send()
        return sealed

    async def _current(self) -> _Base:
        """Return the newest checkpoint and its state."""
        base = self._base
        if base is None:
            number = await ledger.newest(self._store)
        else:
            number = base.number
            while await self._store.exists(keys.checkpoint(number + 1)):
                number += 1
        if base is None or number != base.number:
            base = self._base = await self._read(number)
        return base

    async def _read(self, number: int) -> _Base:
        if number < 0:
            return _Base(-1, None, _START, State())
        data = await ledger.read_note(self._store, number)
        found = note.read(data, self._ring)
        if found.number != number or found.origin != self._origin:
            raise IntegrityError(
                f"{keys.checkpoint(number)} is checkpoint {found.number} of {found.origin}, not of {self._origin}"
            )
        state = await ledger.read_state(self._store, number, found.state)
        if state.tree.root().hex() != found.root or state.tree.size != found.size:
            raise IntegrityError(f"{keys.checkpoint(number)}: its state is of another tree")
        return _Base(number, found.time, sha256(data), state)

    async def _seal(self, base: _Base, now: datetime) -> Sealed | None:
        new, until = await self._listed(base, now)
        leaves = await self._leaves(new, base.state, until)
        state = base.state.copy()
        state.advance(leaves, until)
        number = base.number + 1
        leaf_list, leaf_digest = ledger.pack(ledger.leaf_lines(leaves))
        marks, mark_digest = ledger.pack(state.to_lines())
        await self._create(keys.leaves(number, leaf_digest), leaf_list)
        await self._create(keys.ledger_state(number, mark_digest), marks)
        checkpoint = Checkpoint(
            origin=self._origin,
            size=state.tree.size,
            root=state.tree.root().hex(),
            number=number,
            time=until,
            previous=base.digest,
            leaves=leaf_digest,
            state=mark_digest,
        )
        data = note.sign(checkpoint, self._signer)
        try:
            await self._store.create(keys.checkpoint(number), data)
        except AlreadyExists:
            if await ledger.read_note(self._store, number) != data:
                return None  # another sealer was first; what was written beside it is named by nothing
        self._base = _Base(number, until, sha256(data), state)
        return Sealed(number, len(leaves), state.tree.size, len(state.ended), complete=until == now)

    async def _create(self, key: str, data: bytes) -> None:
        try:
            await self._store.create(key, data)
        except AlreadyExists:
            # Named by its digest: another sealer saw the same.
            return

    async def _listed(self, base: _Base, now: datetime) -> tuple[dict[str, list[_New]], datetime]:
        """Return the new segments by stream, and up to which time the checkpoint speaks."""
        after = keys.segment_after(base.time - ledger.LOOK_BACK) if base.time else ""
        found: dict[str, list[_New]] = defaultdict(list)
        count = 0
        async for key in self._store.list(keys.AUDIT_PREFIX, after=after):
            try:
                time, stream, first = keys.parse_segment(key)
            except ValueError as error:
                self._tell(key, str(error))
                continue
            mark = base.state.marks.get(stream)
            if (mark and first < mark.next) or key in self._refused:
                continue
            found[stream].append(_New(key, time, first))
            count += 1
            if count == MOST_LEAVES:
                return found, max(min(time, now), base.time or time)
        return found, now

    async def _leaves(self, new: dict[str, list[_New]], state: State, until: datetime) -> list[Leaf]:
        """Return what is sealed, by stream, in order."""
        limit = asyncio.Semaphore(_READS_AT_ONCE)

        async def one(stream: str) -> list[Leaf]:
            async with limit:
                return await self._of_stream(stream, new[stream], state.marks.get(stream), until)

        sealed: list[Leaf] = []
        names = sorted(new)
        for start in range(0, len(names), 1000):
            for leaves in await asyncio.gather(*map(one, names[start : start + 1000])):
                sealed += leaves
        return sealed

    async def _of_stream(self, stream: str, new: list[_New], mark: Mark | None, until: datetime) -> list[Leaf]:
        """Return the leaves of one stream: each after the other, or so old that what is between will not come."""
        if mark and mark.closed:
            for found in new:
                self._tell(found.key, "after the stream was closed")
            return []
        following, last = (mark.next, mark.last) if mark else (0, GENESIS)
        leaves: list[Leaf] = []
        for found in sorted(new, key=lambda found: found.first):
            gap = found.first > following
            if gap and found.time > until - HOLD:
                break
            try:
                data = await get_at_most(self._store, found.key, segment.MOST_STORED)
                content = segment.check(found.key, data, self._ring)
            except (segment.Broken, NotFound) as error:
                self._tell(found.key, str(error))
                if isinstance(error, segment.Broken):
                    self._refused.add(found.key)
                continue
            if found.first < following or (not gap and content.header.previous != last):
                self._tell(found.key, "forked: not the continuation of what is sealed")
                continue
            if gap:
                self._tell(found.key, f"records {following} to {found.first - 1} are missing")
            leaf = Leaf(
                key=found.key,
                count=content.header.count,
                last=content.last,
                object=sha256(data),
                closed=content.closed,
            )
            leaves.append(leaf)
            following, last = found.first + leaf.count, leaf.last
            if leaf.closed:
                break
        return leaves

    def _tell(self, key: str, reason: str) -> None:
        """Record once that something is wrong with an object. It is not sealed, and so the verifier finds it too."""
        if key in self._told:
            return
        self._told.add(key)
        log.error("audit: not sealed", key=key, reason=reason)
        self._audit.report(
            Event(
                action=Action.AUDIT_GAP,
                actor=ACTOR,
                tenant=NOBODY,
                request_id=NOBODY,
                resource=key,
                decision=Decision.DENY,
                reason=reason,
            )
        )

    async def _send(self) -> None:
        """Give the witness what it has not; a witness that is away gets it later."""
        base = self._base
        if self._witness is None or base is None:
            return
        try:
            if self._witnessed is None:
                # Its last one again: a witness that has another of that number must not go unnoticed.
                self._witnessed = max(min(await self._witness.newest(), base.number) - 1, -1)
            while self._witnessed < base.number:
                number = self._witnessed + 1
                await self._witness.receive(number, await ledger.read_note(self._store, number))
                self._witnessed = number
        except IntegrityError as error:
            self._tell(keys.checkpoint(base.number if self._witnessed is None else self._witnessed + 1), str(error))
        except SluiceError as error:
            log.warning("audit: the witness was not reached, trying again", error=str(error))


def _to_millisecond(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)

"""Verify the trail. Needs only the bucket, or a copy of it, and the public keys.

One walk along the checkpoints: each one's leaves are read and checked, the tree and the marks are computed again, and
what the bucket lists is compared with what was sealed. Memory holds what is open, not what was read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tasks import keys
from tasks.audit import ledger, note
from tasks.audit.beneath import Beneath
from tasks.audit.check import present
from tasks.audit.faults import Fault, Kind, Verification
from tasks.audit.ledger import Leaf, State
from tasks.audit.listing import Listing
from tasks.audit.note import Checkpoint, spell
from tasks.audit.segment import Ring
from tasks.audit.streams import Streams
from tasks.contracts.base import sha256
from tasks.errors import IntegrityError, NotFound, StoreError
from tasks.stores.objects import ReadableStore
from tasks.stores.versions import Versions

START: Final = "0" * 64
"""What the first checkpoint names as the one before."""


@dataclass(frozen=True)
class Options:
    """How to verify.

    ``since``: the number of a checkpoint that is trusted; what it and those before it sealed is not looked at.
    ``since_note``: that checkpoint as somebody kept it. ``witness``: a store with the checkpoints that a witness has.
    ``expired_before``: what was sealed before this time may be gone by retention. ``progress`` hears (segments done,
    of how many). ``versions``: those that the bucket keeps; what they show to be covered is a fault, and is verified
    all the same.
    """

    since: int | None = None
    since_note: bytes | None = None
    witness: ReadableStore | None = None
    expired_before: datetime | None = None
    progress: Callable[[int, int], None] = lambda done, total: None
    versions: Versions | None = None


async def verify(store: ReadableStore, ring: Ring, options: Options | None = None) -> Verification:
    """Check everything from the first checkpoint, or after ``options.since``, to the newest segment."""
    chosen = options or Options()
    if chosen.versions is None:
        return await _Walk(store, ring, chosen).run()
    beneath = Beneath(store, chosen.versions, ring)
    try:
        await beneath.look()
    except StoreError as error:
        report = await _Walk(store, ring, chosen).run()
        report.caveats.append(f"what lies below the newest versions was not looked at: {error}")
        return report
    report = await _Walk(beneath, ring, chosen).run()
    for fault in beneath.faults(chosen.expired_before):
        report.add(fault)
    if beneath.junk:
        report.caveats.append(f"{beneath.junk} objects have versions besides that nobody signed: none of them counts")
    return report


class _Walk:
    def __init__(self, store: ReadableStore, ring: Ring, options: Options) -> None:
        self._store = store
        self._ring = ring
        self._options = options
        self._report = Verification()
        self._state: State | None = State()
        self._listing = Listing(store)
        self._previous: str | None = START
        self._origin: str | None = None
        self._last: Checkpoint | None = None
        self._streams = Streams(store, ring, self._report, expired_before=options.expired_before)
        self._done = 0
        self._total = 0

    async def run(self) -> Verification:
        numbers = await self._numbers()
        first = await self._start()
        await self._measure(numbers)
        expected = first
        for number in numbers:
            if number < first:
                continue
            if number != expected:
                self._gap(expected, number)
            await self._checkpoint(number)
            expected = number + 1
        await self._streams.unsealed(await self._listing.rest(), self._state)
        self._streams.truncated()
        if self._options.witness is not None:
            await self._witness(self._options.witness, first, expected)
        self._caveats(first)
        return self._report

    async def _numbers(self) -> list[int]:
        """Return the numbers of the checkpoints; say which objects are none."""
        numbers = []
        async for key in self._store.list(keys.CHECKPOINTS):
            number = keys.parse_checkpoint(key)
            if number is None:
                self._fault(Kind.INSERTED, key, "it is not the key of a checkpoint")
            else:
                numbers.append(number)
        return numbers

    # Where to begin, and how far it is ---------------------------------------------------------------

    async def _start(self) -> int:
        since = self._options.since
        if since is None:
            await self._listing.start(None)
            return 0
        key = keys.checkpoint(since)
        data = await ledger.read_note(self._store, since)
        if self._options.since_note not in (None, data):
            self._fault(Kind.FORKED, key, "it is not the checkpoint that was kept")
        found = note.read(data, self._ring)
        self._state = await ledger.read_state(self._store, since, found.state)
        if self._state.tree.root().hex() != found.root or found.number != since:
            raise IntegrityError(f"{key} and its state do not belong together: verify from the beginning")
        self._previous, self._origin, self._last = sha256(data), found.origin, found
        self._done = found.size
        await self._listing.start(found.time - ledger.LOOK_BACK)
        await self._recently_sealed(found)
        return since + 1

    async def _recently_sealed(self, found: Checkpoint) -> None:
        """Tell the listing what was sealed up to ``found`` and is listed all the same."""
        start, number = found.time - ledger.LOOK_BACK, found.number
        while True:
            self._listing.sealed(leaf.key for leaf in await ledger.read_leaves(self._store, number, found.leaves))
            number -= 1
            if number < 0:
                return
            found = note.read(await ledger.read_note(self._store, number), self._ring)
            if found.time < start - ledger.LOOK_BACK:
                return

    async def _measure(self, numbers: list[int]) -> None:
        """Learn how many segments there are, for the progress bar."""
        if numbers:
            try:
                newest = note.read(await ledger.read_note(self._store, numbers[-1]), self._ring)
            except (IntegrityError, NotFound):
                return  # said when it is its turn
            self._total = newest.size

    def _progress(self, done: int) -> None:
        self._options.progress(self._done + done, self._total)

    # One checkpoint ------------------------------------------------------------------------------------

    def _gap(self, expected: int, number: int) -> None:
        for absent in range(expected, number):
            self._fault(Kind.GAP, keys.checkpoint(absent), f"it is not there, and {keys.checkpoint(number)} is")
        self._previous, self._state = None, None

    async def _checkpoint(self, number: int) -> None:
        key = keys.checkpoint(number)
        data = await ledger.read_note(self._store, number)
        self._report.checkpoints += 1
        try:
            found = note.read(data, self._ring)
        except IntegrityError as error:
            kind = Kind.BAD_SIGNATURE if error.code == "bad_signature" else Kind.ALTERED
            self._fault(kind, key, str(error))
            self._previous, self._state = None, None
            return
        if found.number != number:
            self._fault(Kind.REORDERED, key, f"this is checkpoint {found.number}")
            self._previous, self._state = None, None
            return
        if self._previous is not None and found.previous != self._previous:
            # One of the two was exchanged; both are signed, and the chain says that they do not belong together.
            self._fault(Kind.FORKED, keys.checkpoint(max(number - 1, 0)), f"{key} follows another one of that number")
        if self._origin not in (None, found.origin):
            self._fault(Kind.FORKED, key, f"it is of the ledger {found.origin!r}, not {self._origin!r}")
        if self._last and found.time < self._last.time:
            self._fault(Kind.REORDERED, key, "its time is before that of the checkpoint before it")
        self._previous, self._origin = sha256(data), found.origin
        await self._sealed(found)
        self._last = found

    async def _sealed(self, found: Checkpoint) -> None:
        """Check what a checkpoint stands on: the list of its leaves, their segments, its state."""
        key = keys.checkpoint(found.number)
        stored = await self._stored_state(found)
        leaves = await self._leaves(found)
        if leaves is not None:
            self._listing.sealed(leaf.key for leaf in leaves)
            await self._streams.sealed(leaves, self._state, found, self._progress)
            self._done += len(leaves)
        state = self._state
        if state is not None and leaves is not None:
            state.advance(leaves, found.time)
            if (state.tree.root().hex(), state.tree.size) != (found.root, found.size):
                self._fault(Kind.FORKED, key, "its root is not that of the segments before it and its own")
            if stored is not None and stored.to_lines() != state.to_lines():
                name = keys.ledger_state(found.number, found.state)
                self._fault(Kind.ALTERED, name, "its marks do not follow from the segments that were sealed")
        else:
            self._state = stored
        for lost in await self._listing.settle(found.time, ledger.LOOK_BACK):
            self._streams.inserted(lost, f"not in {key} nor in any one before it")

    async def _leaves(self, found: Checkpoint) -> list[Leaf] | None:
        name = keys.leaves(found.number, found.leaves)
        try:
            return await ledger.read_leaves(self._store, found.number, found.leaves)
        except NotFound:
            self._fault(Kind.MISSING, name, "the list of what the checkpoint seals is not there")
        except IntegrityError as error:
            self._fault(Kind.ALTERED, name, str(error))
        return None

    async def _stored_state(self, found: Checkpoint) -> State | None:
        name = keys.ledger_state(found.number, found.state)
        try:
            return await ledger.read_state(self._store, found.number, found.state)
        except NotFound:
            self._fault(Kind.MISSING, name, "the marks of the checkpoint are not there")
        except IntegrityError as error:
            self._fault(Kind.ALTERED, name, str(error))
        return None

    # The witness, and what is said at the end -----------------------------------------------------------

    async def _witness(self, witness: ReadableStore, first: int, expected: int) -> None:
        seen = first - 1
        async for key in witness.list(keys.CHECKPOINTS, after=keys.checkpoint(first - 1) if first else ""):
            number = keys.parse_checkpoint(key)
            if number is None:
                continue
            self._unwitnessed(seen + 1, number)
            seen = number
            kept = await ledger.read_note(witness, number)
            try:
                found = note.read(kept, self._ring)
            except IntegrityError as error:
                self._fault(Kind.BAD_SIGNATURE, key, f"at the witness: {error}")
                continue
            ours = await present(self._store, key, note.MOST_BYTES)
            if found.number != number:
                self._fault(Kind.REORDERED, key, f"at the witness: this is checkpoint {found.number}")
            elif ours is None and number >= expected:
                self._fault(Kind.TRUNCATED, key, "the witness has it, and the bucket has not")
            elif ours is not None and ours != kept:
                self._fault(Kind.FORKED, key, "the witness has another one of that number")
        self._unwitnessed(seen + 1, expected)

    def _unwitnessed(self, first: int, end: int) -> None:
        """Say which checkpoints the witness lacks: about these it says nothing."""
        if first < end:
            which = f"checkpoint {first}" if end - first == 1 else f"checkpoints {first} to {end - 1}"
            self._report.caveats.append(
                f"the witness has not {which}: that these were exchanged, or later ones taken away, cannot be excluded"
            )

    def _caveats(self, first: int) -> None:
        say = self._report.caveats.append
        if first:
            say(f"what was sealed up to checkpoint {first - 1} was not looked at")
        if self._last is None:
            say("there is no checkpoint: missing streams and missing tails cannot be excluded")
        elif self._options.witness is None:
            place = f"checkpoint {self._last.number} of {spell(self._last.time)}"
            say(f"truncation after {place} cannot be excluded without a witness")
        if self._report.unsealed:
            say(f"{self._report.unsealed} segments are not sealed yet: a tail that is missing there would not show")
        if self._report.expired:
            say(f"{self._report.expired} segments are gone by retention: of these only place and hashes were checked")

    def _fault(self, kind: Kind, name: str, reason: str, stream: str = "", sequence: int | None = None) -> None:
        self._report.add(Fault(kind, name, reason, stream, sequence))

"""Prove that the records of a request are in the ledger, to somebody who sees nothing else of it.

The proof shows the request's own records whole, and of the others in their segments only the hashes. What it is checked
with, offline, is ``docs/check_inclusion.py`` and the public keys.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from tasks import keys
from tasks.audit import ledger, note, segment
from tasks.audit.ledger import Leaf, State
from tasks.audit.merkle import inclusion_path, leaf_hash
from tasks.audit.note import Checkpoint
from tasks.audit.read import DELAY, Skipped, Wanted, born, fetched, matching, refuse
from tasks.audit.segment import Ring
from tasks.contracts.base import sha256
from tasks.errors import NotFound, NotReady
from tasks.stores.objects import ReadableStore

FORMAT: Final = "sluice-proof/1"


class _Sealing(NamedTuple):
    """A checkpoint as it is stored, what it says, and what it sealed."""

    data: bytes
    checkpoint: Checkpoint
    leaves: list[Leaf]


async def prove(
    store: ReadableStore, ring: Ring, request_id: str, *, tenant: str | None = None, skipped: Skipped = refuse
) -> dict[str, Any]:
    """Return the proof as JSON values: one part for each segment with records of the request.

    ``skipped`` hears of segments that cannot be read, or that nobody signed who may: nothing of them is proved.

    Raises:
        NotFound: there is no such record.
        NotReady: some are not sealed yet.
        IntegrityError: the ledger does not hold where it is read.
    """
    made = born(request_id)
    parts = []
    finder = _Finder(store, ring)
    wanted = Wanted(request_id=request_id, tenant=tenant)
    async for key, data in fetched(store, since=made - DELAY if made else None):
        try:
            found = segment.unpack(data)
            shown = matching(key, found, wanted, ring)
        except segment.Broken as error:
            skipped(key, error.reason)
            continue
        if shown:
            lines = {str(place): found.lines[place].decode() for place in shown}
            parts.append(await _part(finder, key, found, lines))
    if not parts:
        raise NotFound(f"no audit record of request {request_id!r}")
    return {"format": FORMAT, "request_id": request_id, "segments": parts}


async def _part(finder: _Finder, key: str, found: segment.Unpacked, shown: dict[str, str]) -> dict[str, Any]:
    sealing = await finder.find(key)
    before = await finder.state_before(sealing.checkpoint)
    hashes = [leaf_hash(leaf.line) for leaf in sealing.leaves]
    place = next(at for at, leaf in enumerate(sealing.leaves) if leaf.key == key)
    index = before.tree.size + place
    return {
        "checkpoint": sealing.data.decode(),
        "index": index,
        "path": [node.hex() for node in inclusion_path(index, before.tree, hashes)],
        "leaf": sealing.leaves[place].line.decode(),
        "header": found.header_line.decode(),
        "signature": found.signature.hex(),
        "hashes": [sha256(line) for line in found.lines],
        "records": shown,
    }


class _Finder:
    """Finds the checkpoint that sealed a segment: by time, then onwards. Holds the last one."""

    def __init__(self, store: ReadableStore, ring: Ring) -> None:
        self._store = store
        self._ring = ring
        self._newest: int | None = None
        self._last: _Sealing | None = None

    async def find(self, key: str) -> _Sealing:
        if self._last and any(leaf.key == key for leaf in self._last.leaves):
            return self._last
        if self._newest is None:
            self._newest = await ledger.newest(self._store)
        for number in range(await self._first_after(key), self._newest + 1):
            data, checkpoint = await self._read(number)
            leaves = await ledger.read_leaves(self._store, number, checkpoint.leaves)
            if any(leaf.key == key for leaf in leaves):
                self._last = _Sealing(data, checkpoint, leaves)
                return self._last
        raise NotReady(f"{key} is not sealed yet: wait for the next checkpoint, or `sluice seal`")

    async def state_before(self, checkpoint: Checkpoint) -> State:
        if checkpoint.number == 0:
            return State()
        _, before = await self._read(checkpoint.number - 1)
        return await ledger.read_state(self._store, before.number, before.state)

    async def _first_after(self, key: str) -> int:
        """Return the first checkpoint that can have sealed ``key``."""
        earliest = keys.parse_segment(key).time - ledger.LOOK_BACK
        low, high = 0, (self._newest or 0) + 1
        while low < high:
            middle = (low + high) // 2
            _, checkpoint = await self._read(middle)
            low, high = (low, middle) if checkpoint.time >= earliest else (middle + 1, high)
        return low

    async def _read(self, number: int) -> tuple[bytes, Checkpoint]:
        data = await ledger.read_note(self._store, number)
        return data, note.read(data, self._ring)

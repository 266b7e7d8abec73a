"""Check segments, each by itself, and read them ahead."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from tasks.audit import segment
from tasks.audit.faults import Kind
from tasks.audit.ledger import Leaf
from tasks.audit.segment import Ring
from tasks.contracts.base import sha256
from tasks.errors import NotFound
from tasks.stores.objects import ReadableStore, get_at_most

_AHEAD: Final = 64
"""Segments on their way from the store."""


class Checked(NamedTuple):
    """What a segment says, or what is wrong with it: then ``kind`` is set, and the rest may be empty."""

    previous: str = ""
    last: str = ""
    records: int = 0
    closed: bool = False
    kind: Kind | None = None
    reason: str = ""
    sequence: int | None = None


def checked(leaf: Leaf, data: bytes, ring: Ring) -> Checked:
    """Check one segment, and that it is the one that was sealed; a leaf without ``object`` is of none."""
    is_other = bool(leaf.object) and sha256(data) != leaf.object
    try:
        content = segment.check(leaf.key, data, ring)
    except segment.Broken as error:
        return Checked(kind=error.kind, reason=error.reason, sequence=error.sequence)
    if is_other:
        first = content.header.first
        if content.last == leaf.last:
            return Checked(kind=Kind.ALTERED, reason="its bytes are not those that were sealed", sequence=first)
        return Checked(kind=Kind.FORKED, reason="another segment than was sealed, and signed", sequence=first)
    return Checked(content.header.previous, content.last, content.header.count, content.closed)


def unsealed(key: str) -> Leaf:
    """Return a leaf for what no checkpoint has yet."""
    return Leaf(key=key, count=0, last="", object="", closed=False)


async def read_checked(
    store: ReadableStore, ring: Ring, leaves: Sequence[Leaf]
) -> AsyncIterator[tuple[Leaf, Checked | None]]:
    """Yield each leaf and what its segment says, None where it is not there; in order, read ahead."""
    ahead: deque[tuple[Leaf, asyncio.Task[bytes | None]]] = deque()
    coming = iter(leaves)
    try:
        while True:
            while len(ahead) < _AHEAD and (leaf := next(coming, None)) is not None:
                ahead.append((leaf, asyncio.create_task(present(store, leaf.key))))
            if not ahead:
                return
            leaf, task = ahead.popleft()
            data = await task
            yield leaf, None if data is None else checked(leaf, data, ring)
    finally:
        for _, task in ahead:
            task.cancel()


async def present(store: ReadableStore, key: str, most: int = segment.MOST_STORED) -> bytes | None:
    """Return the bytes at ``key``, None where there are none; of what is too large to hold only the beginning."""
    try:
        return await get_at_most(store, key, most)
    except NotFound:
        return None

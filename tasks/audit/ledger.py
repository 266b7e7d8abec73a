"""The ledger: what a checkpoint stands on. Its leaves, the tree, the marks of streams; how one follows from the last.

Sealer and verifier share these rules, so whoever reads the leaves can compute every state again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec
import orjson

from tasks import keys
from tasks.audit.merkle import Tree, leaf_hash
from tasks.audit.note import MOST_BYTES as MOST_NOTE_BYTES
from tasks.audit.note import spell
from tasks.contracts.audit import GENESIS
from tasks.contracts.base import canonical, sha256
from tasks.errors import IntegrityError
from tasks.stores.objects import ReadableStore, get_at_most

ROTATE: Final = timedelta(minutes=5)
"""A process that wrote nothing for so long begins a new stream."""
GIVE_UP: Final = timedelta(seconds=60)
"""A segment that could not be written for so long is begun again, in a new stream."""
LOOK_BACK: Final = timedelta(minutes=5)
"""How late a segment may appear after the time in its key: giving up, one last answer, and clocks that differ."""
CLOSE: Final = timedelta(minutes=15)
"""A stream without a new segment for so long is closed by the sealer. Far more than :data:`ROTATE`."""
_MOST_BYTES: Final = 1024 * 1024 * 1024
_MOST_STORED: Final = 128 * 1024 * 1024


class Leaf(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed segment: its key, SHA-256 of its stored bytes, its last record's hash, whether that ends the stream."""

    closed: bool
    count: int
    key: str
    last: str
    object: str

    @property
    def line(self) -> bytes:
        """Return what the tree holds."""
        return canonical(msgspec.structs.asdict(self))


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far a stream is sealed: the next sequence number, the last record's hash.

    ``seen`` is the time of the checkpoint that moved or closed it. ``closed`` is empty, ``stream`` or ``sealer``.
    """

    closed: str = ""
    last: str = GENESIS
    next: int = 0
    seen: datetime
    stream: str


class State:
    """The tree and the marks after a checkpoint. ``ended`` has the streams that :meth:`advance` closed for idleness."""

    def __init__(self, tree: Tree | None = None, marks: Iterable[Mark] = ()) -> None:
        self.tree = tree or Tree()
        self.marks = {mark.stream: mark for mark in marks}
        self.ended: list[str] = []

    def advance(self, leaves: Iterable[Leaf], time: datetime) -> None:
        """Go on to the checkpoint of ``time`` that seals ``leaves``."""
        for leaf in leaves:
            self.tree.append(leaf_hash(leaf.line))
            _, stream, first = keys.parse_segment(leaf.key)
            closed = "stream" if leaf.closed else ""
            self.marks[stream] = Mark(stream=stream, next=first + leaf.count, last=leaf.last, seen=time, closed=closed)
        self.ended = [mark.stream for mark in self.marks.values() if not mark.closed and time - mark.seen >= CLOSE]
        for stream in self.ended:
            self.marks[stream] = msgspec.structs.replace(self.marks[stream], closed="sealer", seen=time)
        for mark in list(self.marks.values()):
            if mark.closed and time - mark.seen > LOOK_BACK:
                del self.marks[mark.stream]

    def copy(self) -> State:
        """Return a state that can go on by itself."""
        return State(Tree(self.tree.size, self.tree.frontier), self.marks.values())

    def to_lines(self) -> bytes:
        """Return the one spelling of the state."""
        head = {"frontier": [node.hex() for node in self.tree.frontier], "size": self.tree.size}
        marks = [
            canonical({**msgspec.structs.asdict(mark), "seen": spell(mark.seen)})
            for _, mark in sorted(self.marks.items())
        ]
        return b"\n".join([canonical(head), *marks, b""])

    @classmethod
    def from_lines(cls, data: bytes) -> State:
        """Read what :meth:`to_lines` wrote; raises :class:`IntegrityError`."""
        try:
            head, *marks = data.splitlines()
            fields = orjson.loads(head)
            tree = Tree(fields["size"], [bytes.fromhex(node) for node in fields["frontier"]])
            return cls(tree, map(_MARK.decode, marks))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"no state of a ledger: {error}") from error


_MARK: Final = msgspec.json.Decoder(Mark)
_LEAF: Final = msgspec.json.Decoder(Leaf)


def pack(content: bytes) -> tuple[bytes, str]:
    """Return ``content`` compressed, and the SHA-256 of that, which names the object."""
    import zstandard

    data = zstandard.ZstdCompressor(level=3).compress(content)
    return data, sha256(data)


def _unpack(data: bytes, digest: str) -> bytes:
    import zstandard

    if sha256(data) != digest:
        raise IntegrityError("it has not the digest that its checkpoint names")
    try:
        if not 0 <= zstandard.frame_content_size(data) <= _MOST_BYTES:
            raise IntegrityError("too large to be unpacked")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"cannot be unpacked: {error}") from error


def leaf_lines(leaves: Iterable[Leaf]) -> bytes:
    """Return the list of ``leaves`` that is stored, before packing."""
    return b"".join(leaf.line + b"\n" for leaf in leaves)


async def read_note(store: ReadableStore, number: int) -> bytes:
    """Return checkpoint ``number`` as it is stored; raises :class:`NotFound`."""
    return await get_at_most(store, keys.checkpoint(number), MOST_NOTE_BYTES)


async def read_leaves(store: ReadableStore, number: int, digest: str) -> list[Leaf]:
    """Return what checkpoint ``number`` seals; raises :class:`NotFound`, :class:`IntegrityError`."""
    content = _unpack(await get_at_most(store, keys.leaves(number, digest), _MOST_STORED), digest)
    try:
        leaves = [_LEAF.decode(line) for line in content.splitlines()]
        for leaf in leaves:
            keys.parse_segment(leaf.key)
    except ValueError as error:
        raise IntegrityError(f"no list of leaves: {error}") from error
    return leaves


async def read_state(store: ReadableStore, number: int, digest: str) -> State:
    """Return the state at checkpoint ``number``; raises as :func:`read_leaves`."""
    return State.from_lines(_unpack(await get_at_most(store, keys.ledger_state(number, digest), _MOST_STORED), digest))


async def newest(store: ReadableStore) -> int:
    """Return the number of the newest checkpoint, -1 where there is none. Its requests grow with the logarithm.

    Raises:
        IntegrityError: one is missing before the newest.
    """
    low, high = -1, 1
    while await store.exists(keys.checkpoint(high - 1)):
        low, high = high - 1, high * 2
    # low exists, high - 1 does not.
    high -= 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if await store.exists(keys.checkpoint(middle)) else (low, middle)
    async for key in store.list(keys.CHECKPOINTS, after=keys.checkpoint(max(low, 0))):
        if key == keys.checkpoint(low + 1):
            return await _follow(store, low + 1)
        if key > keys.checkpoint(low + 1) and keys.parse_checkpoint(key) is not None:
            raise IntegrityError(
                f"{keys.checkpoint(low + 1)} is missing, and {key} is there: will not seal over a gap; "
                "bring back the one, or take away the other if it is not yours"
            )
    return low


async def _follow(store: ReadableStore, number: int) -> int:
    """Another sealer wrote while we looked."""
    while await store.exists(keys.checkpoint(number + 1)):
        number += 1
    return number

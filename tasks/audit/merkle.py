"""The Merkle tree of RFC 6962: hashes of leaves and nodes, a tree that grows, inclusion proofs. Hashes are 32 bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over its children."""
    return sha256(b"\1" + left + right).digest()


class Tree:
    """A tree that only grows. It keeps the roots of its largest complete subtrees, not its leaves.

    ``frontier`` are those roots, left to right: one for each bit that is set in ``size``.
    """

    def __init__(self, size: int = 0, frontier: Iterable[bytes] = ()) -> None:
        self.size = size
        self.frontier = list(frontier)
        if len(self.frontier) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} complete subtrees")

    def append(self, leaf: bytes) -> None:
        """Add the leaf hash ``leaf``."""
        size, node = self.size, leaf
        while size & 1:
            node = node_hash(self.frontier.pop(), node)
            size >>= 1
        self.frontier.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Return the tree's hash."""
        if not self.frontier:
            return EMPTY_ROOT
        *rest, root = self.frontier
        for node in reversed(rest):
            root = node_hash(node, root)
        return root


def inclusion_path(index: int, before: Tree, added: Sequence[bytes]) -> list[bytes]:
    """Return the audit path of leaf ``index`` in the tree of ``before`` with ``added`` after it, leaf upwards.

    The leaf is one of ``added``: all that lies left of them enters by the frontier of ``before``.
    """
    size = before.size + len(added)
    if not before.size <= index < size:
        raise ValueError(f"leaf {index} is not one of the {len(added)} after {before.size}")
    roots = _Range(before, added)
    return _path(index, 0, size, roots)


class _Range:
    """Hashes of subtrees: complete ones on the left come from the frontier, all others are computed."""

    def __init__(self, before: Tree, added: Sequence[bytes]) -> None:
        self._old = before.size
        self._added = added
        self._known: dict[tuple[int, int], bytes] = {}
        start = 0
        for node, bit in zip(before.frontier, reversed(_bits(before.size)), strict=True):
            self._known[start, start + bit] = node
            start += bit

    def hash(self, start: int, end: int) -> bytes:
        known = self._known.get((start, end))
        if known is not None:
            return known
        if end - start == 1:
            return self._added[start - self._old]
        middle = start + _split(end - start)
        return node_hash(self.hash(start, middle), self.hash(middle, end))


def _path(index: int, start: int, end: int, roots: _Range) -> list[bytes]:
    if end - start == 1:
        return []
    middle = start + _split(end - start)
    if index < middle:
        return [*_path(index, start, middle, roots), roots.hash(middle, end)]
    return [*_path(index, middle, end, roots), roots.hash(start, middle)]


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root that ``path`` leads to from ``leaf``; raises :class:`ValueError` where its length is wrong."""
    if not 0 <= index < size:
        raise ValueError("the leaf lies outside of the tree")
    node, last, rest = leaf, size - 1, list(path)
    while last:
        if index & 1 or index < last:
            if not rest:
                raise ValueError("the path is too short")
            sibling = rest.pop(0)
            node = node_hash(sibling, node) if index & 1 else node_hash(node, sibling)
        index >>= 1
        last >>= 1
    if rest:
        raise ValueError("the path is too long")
    return node


def _split(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def _bits(size: int) -> list[int]:
    return [1 << position for position in range(size.bit_length()) if size >> position & 1]

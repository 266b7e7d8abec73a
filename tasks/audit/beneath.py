"""The audit bucket as it was before anybody laid delete markers or newer versions over it.

A lock keeps versions, it does not keep anybody from covering them. Sluice creates each object once, so whatever lies on
top of one is somebody else's. The version that is read here is the oldest one that proves itself: a segment or a
checkpoint by its signature, a list of the ledger by the digest in its name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple

from tasks import keys
from tasks.audit import note, segment
from tasks.audit.faults import Fault, Kind
from tasks.audit.note import spell
from tasks.audit.segment import Ring
from tasks.contracts.base import sha256
from tasks.errors import IntegrityError, NotFound
from tasks.stores.objects import ReadableStore
from tasks.stores.versions import Layers, Versions

_PREFIXES = (keys.AUDIT_PREFIX, keys.CHECKPOINTS, keys.LEDGER)
_MOST_BYTES = 128 * 1024 * 1024


class _Cover(NamedTuple):
    """The genuine version of an object, and what lies over it."""

    version: str
    layers: Layers


class Beneath:
    """An object store that reads below covers. ``junk`` counts layers over or under which nothing genuine is hidden."""

    def __init__(self, store: ReadableStore, versions: Versions, ring: Ring) -> None:
        self._store = store
        self._versions = versions
        self._ring = ring
        self._covers: dict[str, _Cover] = {}
        self.junk = 0

    async def look(self) -> None:
        """Find what is covered; memory grows with that. Raises :class:`StoreError` where the store does not say."""
        for prefix in _PREFIXES:
            async for layers in self._versions.layered(prefix):
                version = await self._genuine(layers)
                if version is None or (version == layers.versions[-1] and not layers.deleted):
                    self.junk += 1
                else:
                    self._covers[layers.key] = _Cover(version, layers)

    def faults(self, expired_before: datetime | None) -> list[Fault]:
        """Return what was covered, but for segments that are marked as deleted because their time is over."""
        return [_fault(cover) for cover in self._covers.values() if not _is_expired(cover.layers, expired_before)]

    async def get(self, key: str) -> bytes:
        """See :class:`tasks.stores.objects.ReadableStore`."""
        cover = self._covers.get(key)
        if cover is None:
            return await self._store.get(key)
        return await self._versions.get(key, cover.version, _MOST_BYTES)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """See :class:`tasks.stores.objects.ReadableStore`."""
        if key in self._covers:
            yield await self.get(key)
            return
        async for piece in self._store.read(key):
            yield piece

    async def exists(self, key: str) -> bool:
        """See :class:`tasks.stores.objects.ReadableStore`."""
        return key in self._covers or await self._store.exists(key)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[str]:
        """See :class:`tasks.stores.objects.ReadableStore`."""
        deleted = sorted(
            (
                key
                for key, cover in self._covers.items()
                if cover.layers.deleted and key.startswith(prefix) and key > after
            ),
            reverse=True,
        )
        async for key in self._store.list(prefix, after=after):
            while deleted and deleted[-1] < key:
                yield deleted.pop()
            yield key
        while deleted:
            yield deleted.pop()

    async def _genuine(self, layers: Layers) -> str | None:
        for version in layers.versions:
            try:
                data = await self._versions.get(layers.key, version, _MOST_BYTES)
            except NotFound:
                continue  # its time was over just now
            if _is_genuine(layers.key, data, self._ring):
                return version
        return None


def _is_genuine(key: str, data: bytes, ring: Ring) -> bool:
    """Tell whether ``data`` proves itself to be what belongs at ``key``."""
    try:
        if key.startswith(keys.AUDIT_PREFIX):
            segment.check(key, data, ring)
            return True
        if key.startswith(keys.CHECKPOINTS):
            return note.read(data, ring).number == keys.parse_checkpoint(key)
    except (segment.Broken, IntegrityError):
        return False
    return key.endswith(f"-{sha256(data)}.zst")


def _is_expired(layers: Layers, before: datetime | None) -> bool:
    if before is None or not layers.deleted or not layers.key.startswith(keys.AUDIT_PREFIX):
        return False
    return keys.parse_segment(layers.key).time < before


def _fault(cover: _Cover) -> Fault:
    layers = cover.layers
    kind, what = (Kind.DELETED, "a delete marker") if layers.deleted else (Kind.OVERWRITTEN, "a newer version")
    reason = f"{what} of {spell(layers.time)} lies over it; what was written first is there, as version {cover.version}"
    if not layers.key.startswith(keys.AUDIT_PREFIX):
        return Fault(kind, layers.key, reason)
    _, stream, first = keys.parse_segment(layers.key)
    return Fault(kind, layers.key, reason, stream, first)

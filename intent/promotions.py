"""Which version serves: an append-only log of numbered objects.

Each entry is created once, under the next number. Two that promote at the same time cannot fork the log: one of them
finds its number taken. The last entry alone says what serves, so noticing a change is one read of the next number.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from tasks import keys
from tasks.contracts.base import SCHEMA_VERSION, Contract, UtcDatetime, always, parse_versioned, to_utc
from tasks.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from tasks.stores.objects import ObjectStore

WHOLE: Final = 1.0


class Pinned(Struct, frozen=True):
    """One published version of ``family``, by its name and the SHA-256 of its manifest.

    Without a name it is the model that comes with the package.
    """

    family: str = ""
    version: str = ""
    manifest: str = ""

    def __str__(self) -> str:
        return self.version or "the packaged model"


PACKAGED: Final = Pinned()


class Promotion(Contract, frozen=True, kw_only=True):
    """An entry of the log.

    ``version`` gets ``share`` (0..1) of the requests. Where that is not the whole, it is a canary, and ``previous``,
    which served the whole before, keeps the rest. Either may be empty: the packaged model. ``manifest`` and
    ``previous_manifest`` are the SHA-256 of their manifests.
    """

    schema_version: str = always(SCHEMA_VERSION)
    family: str
    number: Annotated[int, Meta(ge=1)]
    kind: Literal["promote", "rollback"]
    version: str
    manifest: str
    share: Annotated[float, Meta(gt=0, le=1)]
    previous: str
    previous_manifest: str
    who: str
    at: UtcDatetime
    why: str = always("")

    def __post_init__(self) -> None:
        to_utc(self, "at")

    @property
    def stable(self) -> Pinned:
        """Return what serves every request that no canary gets."""
        return self._before if self.share < WHOLE else self._named

    @property
    def canary(self) -> Pinned | None:
        """Return what gets ``share`` of the requests on trial, or None."""
        return self._named if self.share < WHOLE else None

    @property
    def _named(self) -> Pinned:
        return Pinned(self.family, self.version, self.manifest) if self.version else PACKAGED

    @property
    def _before(self) -> Pinned:
        return Pinned(self.family, self.previous, self.previous_manifest) if self.previous else PACKAGED


class Change(Struct, frozen=True, kw_only=True):
    """By whom, when and why."""

    who: str
    at: datetime
    why: str = ""


class PromotionLog:
    """The log of one family."""

    def __init__(self, store: ObjectStore, family: str) -> None:
        self.family = family
        self._store = store

    async def latest(self) -> Promotion | None:
        """Return the last entry, or None where nothing was ever promoted; one LIST, and one GET where there is one."""
        numbers = [_number(key) async for key in self._store.list(keys.promotions(self.family))]
        return await self.read(max(numbers)) if numbers else None

    async def read(self, number: int) -> Promotion:
        """Return an entry.

        Raises:
            NotFound: there is none with this number, or not yet.
            MalformedMessage: it is no promotion.
        """
        return parse_versioned(Promotion, await self._store.get(keys.promotion(self.family, number)))

    async def since(self, number: int) -> Promotion | None:
        """Return the last entry after ``number``, or None where there is none; one GET more than there are."""
        last = None
        try:
            while True:
                last = await self.read((last.number if last else number) + 1)
        except NotFound:
            return last

    async def backwards(self, last: Promotion) -> AsyncIterator[Promotion]:
        """Yield ``last`` and the entries before it, the newest first."""
        entry = last
        yield entry
        while entry.number > 1:
            entry = await self.read(entry.number - 1)
            yield entry

    async def serving_since(self, last: Promotion) -> Promotion | None:
        """Return the entry that gave the whole to what is stable at ``last``; None for the model of the beginning."""
        async for entry in self.backwards(last):
            if entry.share == WHOLE:
                return entry
        return None

    async def append(self, entry: Promotion) -> None:
        """Write the next entry.

        Raises:
            Conflict: somebody else wrote it in the meantime.
        """
        try:
            await self._store.create(keys.promotion(self.family, entry.number), entry.to_bytes())
        except AlreadyExists:
            there = await self.read(entry.number)
            if there != entry:  # else it is this very entry, from a write whose answer was lost
                raise Conflict(
                    f"{there.who} did a {there.kind} to {there.version or 'the packaged model'} in the meantime: "
                    "look at `sluice intent versions`, then decide again"
                ) from None

    async def promotion(self, last: Promotion | None, pinned: Pinned, share: float, change: Change) -> Promotion:
        """Return the entry that gives ``share`` (above 0, at most 1) to ``pinned``; not written yet.

        Raises:
            InvalidInput: that is so already, or the share is not within its bounds.
        """
        if not 0 < share <= WHOLE:
            raise InvalidInput(f"share: must be above 0 and at most 100%, is {share * 100:g}%")
        stable = last.stable if last else PACKAGED
        if pinned == stable and (share < WHOLE or last is None or last.canary is None):
            raise InvalidInput(f"{pinned} serves all requests already")
        if last and pinned == last.canary and share == last.share:
            raise InvalidInput(f"{pinned} has {share:.4g} of the requests already")
        return _entry(self.family, last, pinned, share, "promote", change)

    async def rollback(self, last: Promotion | None, change: Change) -> Promotion:
        """Return the entry that takes the last promotion back which none took back yet; not written yet.

        Where that was a canary, the stable version gets the whole again; else the version before it.

        Raises:
            InvalidInput: there is nothing to go back to.
        """
        undone = 0
        if last:
            async for entry in self.backwards(last):
                if entry.kind == "rollback":
                    undone += 1
                elif undone:
                    undone -= 1
                elif last.canary or _before(entry) != last.stable:
                    return _entry(self.family, last, _before(entry), WHOLE, "rollback", change)
        raise InvalidInput(f"{self.family}: there is no promotion to take back")


def _number(key: str) -> int:
    name = key.rpartition("/")[2].removesuffix(".json")
    return int(name) if name.isdecimal() else 0


def _before(entry: Promotion) -> Pinned:
    return Pinned(entry.family, entry.previous, entry.previous_manifest) if entry.previous else PACKAGED


def _entry(
    family: str,
    last: Promotion | None,
    pinned: Pinned,
    share: float,
    kind: Literal["promote", "rollback"],
    change: Change,
) -> Promotion:
    stable = last.stable if last else PACKAGED
    return Promotion(
        family=family,
        number=(last.number if last else 0) + 1,
        kind=kind,
        version=pinned.version,
        manifest=pinned.manifest,
        share=share,
        previous=stable.version,
        previous_manifest=stable.manifest,
        who=change.who,
        at=change.at,
        why=change.why,
    )

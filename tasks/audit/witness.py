"""Witnesses: somebody else who keeps the checkpoints, so that the newest cannot be taken back unseen."""

from __future__ import annotations

from typing import Protocol

from tasks import keys
from tasks.audit import ledger
from tasks.errors import AlreadyExists, IntegrityError
from tasks.stores.objects import ObjectStore


class Witness(Protocol):
    """Receives every checkpoint, in order."""

    async def newest(self) -> int:
        """Return the number of the last checkpoint that it has, -1 for none."""

    async def receive(self, number: int, note: bytes) -> None:
        """Keep a checkpoint; again is no error. Raises :class:`IntegrityError` where it has another of that number."""


class BucketWitness:
    """A second bucket, best under another role in another account: writers may create there, and nothing else."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def newest(self) -> int:
        """See :class:`Witness`."""
        return await ledger.newest(self._store)

    async def receive(self, number: int, note: bytes) -> None:
        """See :class:`Witness`."""
        key = keys.checkpoint(number)
        try:
            await self._store.create(key, note)
        except AlreadyExists:
            if await ledger.read_note(self._store, number) != note:
                raise IntegrityError(f"the witness has another {key}: the ledger is forked") from None

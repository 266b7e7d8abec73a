"""Doors over real stores, as every process opens them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from handlers.acting import Acting
from tasks.access.gate import Caller, Gate, open_gate
from tasks.audit.opening import open_process
from tasks.audit.stream import AuditStream
from tasks.contracts.base import utc_now
from tasks.settings import Settings
from tasks.stores.connect import Stores

if TYPE_CHECKING:
    from handlers.door import Door

DOOR: Final = "door"
"""The name of a door's audit stream."""


class OpenDoor(NamedTuple):
    """A door, and what stands behind it."""

    door: Door
    gate: Gate
    audit: AuditStream
    stores: Stores
    now: Callable[[], datetime]

    def acting(self, caller: Caller) -> Acting:
        """Return ``caller`` at this door."""
        return Acting(caller, self.gate, self.audit, self.now)


@contextlib.asynccontextmanager
async def open_acting(settings: Settings) -> AsyncIterator[tuple[Acting, Stores]]:
    """Yield whoever the local key stands for, and the stores.

    Raises:
        NotReady: there are no keys to sign with, or the key stands for no one subject.
    """
    async with _opened(settings, None, utc_now) as (gate, audit, stores):
        yield Acting(gate.caller(), gate, audit), stores


@contextlib.asynccontextmanager
async def open_door(
    settings: Settings, name: str, *, identity: str | None = None, now: Callable[[], datetime] = utc_now
) -> AsyncIterator[OpenDoor]:
    """Yield a door called ``name``; ``identity`` names the key that signs, by default ``grants.identity``.

    Raises:
        NotReady: there are no keys to sign with; the message says how to make them.
    """
    from handlers.door import Door

    async with _opened(settings, identity, now) as (gate, audit, stores):
        door = Door(
            settings,
            name=name,
            gate=gate,
            audit=audit,
            register=stores.register,
            relay=stores.relay,
            bodies=stores.bodies,
            results=stores.results,
            now=now,
        )
        yield OpenDoor(door, gate, audit, stores, now)


@contextlib.asynccontextmanager
async def _opened(
    settings: Settings, identity: str | None, now: Callable[[], datetime]
) -> AsyncIterator[tuple[Gate, AuditStream, Stores]]:
    async with open_process(settings, DOOR, now=now) as (keyset, stores, audit):
        gate = open_gate(settings, keys=keyset, revocations=stores.revocations, now=now, identity=identity)
        yield gate, audit, stores

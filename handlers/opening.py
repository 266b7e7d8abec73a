"""A door over real stores, as every process opens it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Final, NamedTuple

from handlers.desk import Desk
from handlers.door import Door
from tasks.access.gate import Gate, open_gate
from tasks.access.redact import Redactor
from tasks.access.sources import load_keys
from tasks.audit.opening import open_audit
from tasks.contracts.base import utc_now
from tasks.runtime import make_finisher
from tasks.settings import Settings
from tasks.stores.connect import Stores, connect

DOOR: Final = "door"
"""The name of a door's audit stream."""


class Opened(NamedTuple):
    """A door, and what stands around it."""

    door: Door
    desk: Desk
    gate: Gate
    stores: Stores


@contextlib.asynccontextmanager
async def open_door(
    settings: Settings, name: str, *, identity: str | None = None, now: Callable[[], datetime] = utc_now
) -> AsyncIterator[Opened]:
    """Yield a door called ``name``; ``identity`` names the key that signs, by default ``grants.identity``.

    Raises:
        NotReady: there are no keys to sign with; the message says how to make them.
    """
    keyset, redactor = load_keys(settings), Redactor.of(settings.auditing)
    async with (
        connect(settings) as stores,
        open_audit(DOOR, settings, stores, keyset=keyset, redactor=redactor, now=now) as audit,
    ):
        gate = open_gate(settings, keys=keyset, revocations=stores.revocations, now=now, identity=identity)
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
        desk = Desk(
            gate=gate,
            audit=audit,
            register=stores.register,
            results=stores.results,
            finisher=make_finisher(settings, stores, audit, now),
            now=now,
        )
        yield Opened(door, desk, gate, stores)

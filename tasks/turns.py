"""Where a session stands before a turn: the version that it goes on from, or the result that it has had already.

Before a version is created, the result of the version before it is there (whoever died in between is helped). So a turn
that has no result after a version was seen is in none before it, whatever the register has forgotten.
"""

from __future__ import annotations

import asyncio

from msgspec import Struct

from tasks.contracts.message import Message
from tasks.contracts.result import Result
from tasks.contracts.session import SessionVersion
from tasks.stores.results import ResultStore
from tasks.stores.sessions import SessionStore


class Turn(Struct, frozen=True):
    """``latest`` is the session's newest version; ``standing`` the result of the turn where it was taken before."""

    latest: SessionVersion | None
    standing: Result | None = None


async def find_turn(message: Message, session_id: str, sessions: SessionStore, results: ResultStore) -> Turn:
    """Return where the session stands before the turn of ``message``."""

    async def standing() -> Result | None:
        return await results.get(message.tenant, message.id, message.revision)

    hint = await sessions.remembered(message.tenant, session_id)
    known = hint.version if hint else None
    latest, result = await asyncio.gather(
        sessions.latest(message.tenant, session_id, hint=hint), standing() if known else _nothing()
    )
    if known is None or latest is not known:
        # The look for a result must come after the version was seen, and the result of that version must be there.
        await settle(latest, results)
        result = await standing()
    if latest and latest.turn == (message.id, message.revision):
        # An attempt before this one took the turn and died before it wrote the result, which lies beside the state.
        result = latest.result
    return Turn(latest, result)


async def settle(latest: SessionVersion | None, results: ResultStore) -> None:
    """Write the result that lies in ``latest`` unless it is there: a version may follow only then."""
    if latest is None or latest.result is None:
        return
    kept = latest.result
    if await results.get(kept.tenant, kept.request_id, kept.revision) is None:
        await results.create(kept)


async def _nothing() -> None:
    return None

"""One version of a session."""

from __future__ import annotations

from typing import Any

import msgspec

from tasks.contracts.base import SCHEMA_VERSION, Contract, UtcDatetime, always, canonical, to_utc
from tasks.contracts.result import Result


class SessionVersion(Contract, frozen=True, kw_only=True):
    """An agent's saved state after a turn, with the result of that turn.

    Because the result lies beside the state, an attempt that died between saving the session and writing the result
    is finished by the next one without a second turn. A version that was ``deleted_by`` somebody has neither: the
    session begins anew after it, and it goes on being in the way of attempts that began before it.
    """

    schema_version: str = always(SCHEMA_VERSION)
    tenant: str
    session_id: str
    version: int
    saved_at: UtcDatetime
    state: dict[str, Any] = msgspec.field(default_factory=dict)
    result: Result | None = None
    deleted_by: str | None = None

    @property
    def turn(self) -> tuple[str, int] | None:
        """Return the request and the revision that took this turn, None where the session was deleted."""
        return (self.result.request_id, self.result.revision) if self.result else None

    def __post_init__(self) -> None:
        to_utc(self, "saved_at")

    def to_bytes(self) -> bytes:
        """Return the canonical bytes that are stored."""
        # The state is any JSON: canonical() spells its great numbers as it did before, and refuses what is none.
        return canonical(self.to_dict())

"""One version of a session."""

from __future__ import annotations

from typing import Any

from tasks.contracts.base import SCHEMA_VERSION, Contract, UtcDatetime
from tasks.contracts.result import Result


class SessionVersion(Contract):
    """An agent's saved state after a turn, with the result of that turn.

    Because the result lies beside the state, an attempt that died between saving the session and writing the result
    is finished by the next one without a second turn.
    """

    schema_version: str = SCHEMA_VERSION
    tenant: str
    session_id: str
    version: int
    saved_at: UtcDatetime
    state: dict[str, Any]
    result: Result

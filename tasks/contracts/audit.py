"""One thing that happened, by whom, allowed or not."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import Field

from tasks.contracts.base import SCHEMA_VERSION, Contract, UtcDatetime, canonical, sha256

GENESIS: Final = "0" * 64
"""The previous hash of a stream's first record."""


class Action(StrEnum):
    """What happened."""

    REQUEST_ACCEPTED = "request.accepted"
    REQUEST_REJECTED = "request.rejected"
    REQUEST_EXPIRED = "request.expired"
    REQUEST_REENQUEUED = "request.reenqueued"
    REQUEST_DEAD_LETTERED = "request.dead_lettered"
    INTENT_ROUTED = "intent.routed"
    AGENT_STARTED = "agent.started"
    AGENT_FALLBACK = "agent.fallback"
    TOOL_CALLED = "tool.called"
    MODEL_OVERRIDE = "model.override"
    INTENT_OVERRIDE = "intent.override"
    RESULT_WRITTEN = "result.written"
    SESSION_SAVED = "session.saved"
    ATTEMPT_FAILED = "attempt.failed"
    ATTEMPT_DISCARDED = "attempt.discarded"
    ESCALATION_OPENED = "escalation.opened"
    MESSAGE_QUARANTINED = "message.quarantined"


class Decision(StrEnum):
    """Whether it was allowed."""

    ALLOW = "allow"
    DENY = "deny"


class Event(Contract):
    """What a caller reports. The stream adds its place in the chain and makes an :class:`AuditRecord` of it."""

    action: Action
    actor: str
    tenant: str
    request_id: str
    resource: str
    decision: Decision = Decision.ALLOW
    reason: str = ""
    details: dict[str, str | int | float | bool] = Field(default_factory=dict)


class AuditRecord(Event):
    """An event in its stream: ``previous`` is the hash of the record before it, :data:`GENESIS` for the first."""

    schema_version: str = SCHEMA_VERSION
    time: UtcDatetime
    stream: str
    sequence: int
    previous: str

    def to_bytes(self) -> bytes:
        """Return the canonical line that is stored and hashed."""
        return canonical(self.model_dump(mode="json"))

    def hash(self) -> str:
        """Return the SHA-256 of :meth:`to_bytes`."""
        return sha256(self.to_bytes())

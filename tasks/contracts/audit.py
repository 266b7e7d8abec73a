"""One thing that happened, by whom, allowed or not."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from tasks.contracts.base import SCHEMA_VERSION, Contract, UtcDatetime, canonical, sha256, to_utc

GENESIS: Final = "0" * 64
"""The previous hash of a stream's first record."""

Details = dict[str, str | int | float | bool]
_SCALARS: Final = (str, int, float)


class Action(StrEnum):
    """What happened."""

    REQUEST_ACCEPTED = "request.accepted"
    REQUEST_REJECTED = "request.rejected"
    REQUEST_EXPIRED = "request.expired"
    REQUEST_CANCELLED = "request.cancelled"
    REQUEST_REENQUEUED = "request.reenqueued"
    REQUEST_DEAD_LETTERED = "request.dead_lettered"
    REQUEST_REDRIVEN = "request.redriven"
    DEAD_LETTER_READ = "dead_letter.read"
    DEAD_LETTER_DROPPED = "dead_letter.dropped"
    INTENT_ROUTED = "intent.routed"
    AGENT_STARTED = "agent.started"
    AGENT_FALLBACK = "agent.fallback"
    TOOL_CALLED = "tool.called"
    MODEL_OVERRIDE = "model.override"
    INTENT_OVERRIDE = "intent.override"
    PLAN_CREATED = "plan.created"
    PLAN_REFUSED = "plan.refused"
    STEP_FINISHED = "step.finished"
    RESULT_WRITTEN = "result.written"
    SESSION_SAVED = "session.saved"
    SESSION_READ = "session.read"
    SESSION_DELETED = "session.deleted"
    ATTEMPT_FAILED = "attempt.failed"
    ATTEMPT_DISCARDED = "attempt.discarded"
    ESCALATION_OPENED = "escalation.opened"
    ESCALATION_ANSWERED = "escalation.answered"
    ESCALATION_READ = "escalation.read"
    MESSAGE_QUARANTINED = "message.quarantined"
    MODEL_PUBLISHED = "model.published"
    MODEL_PROMOTED = "model.promoted"
    MODEL_ROLLED_BACK = "model.rolled_back"
    MODEL_REFUSED = "model.refused"
    MESSAGE_REPLAYED = "message.replayed"
    GRANT_FORGED = "grant.forged"
    PERMISSION_VIOLATION = "permission.violation"
    STREAM_CLOSED = "stream.closed"
    AUDIT_GAP = "audit.gap"
    ALERT_RAISED = "alert.raised"
    CALLBACK_DELIVERED = "callback.delivered"
    CALLBACK_FAILED = "callback.failed"
    QUOTA_EXCEEDED = "quota.exceeded"
    SETTINGS_RELOADED = "settings.reloaded"
    SETTINGS_REFUSED = "settings.refused"


class Decision(StrEnum):
    """Whether it was allowed."""

    ALLOW = "allow"
    DENY = "deny"


class Event(Contract, frozen=True, kw_only=True, omit_defaults=False):
    """What a caller reports. The stream adds its place in the chain and makes an :class:`AuditRecord` of it."""

    action: Action
    actor: str
    tenant: str
    request_id: str
    resource: str
    decision: Decision = Decision.ALLOW
    reason: str = ""
    details: Details = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.details.items():
            if not isinstance(value, _SCALARS):
                raise TypeError(f"details.{name} is neither text nor a number nor true or false")


class AuditRecord(Event, frozen=True, kw_only=True):
    """An event in its stream: ``previous`` is the hash of the record before it, :data:`GENESIS` for the first."""

    schema_version: str = SCHEMA_VERSION
    time: UtcDatetime
    stream: str
    sequence: int
    previous: str

    def __post_init__(self) -> None:
        super().__post_init__()
        to_utc(self, "time")

    def to_bytes(self) -> bytes:
        """Return the canonical line that is stored and hashed."""
        # Whoever verifies compares with this spelling, of great numbers too.
        return canonical(msgspec.structs.asdict(self))

    def hash(self) -> str:
        """Return the SHA-256 of :meth:`to_bytes`."""
        return sha256(self.to_bytes())

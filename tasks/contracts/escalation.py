"""A question for a person, and the answer to it."""

from __future__ import annotations

from typing import Final

from tasks.contracts.base import SCHEMA_VERSION, Contract, UtcDatetime, always, to_utc
from tasks.contracts.message import Message
from tasks.contracts.result import AgentInfo, Result

HUMAN: Final = "human"
"""The agent type of a result that a person wrote; its model is who."""
ABSTAINED: Final = "abstained"
_TOLD_BY_INTENT: Final = frozenset({"talk_to_human", "out_of_scope"})


class Escalation(Contract, frozen=True, kw_only=True):
    """A revision of a request that waits for a person.

    ``reason`` is a short code: the intent ``talk_to_human`` or ``out_of_scope``, ``abstained``, or that of the error
    for which the request fell back. ``brief`` is what an agent wrote for the person, empty where none could.
    ``message`` is what the request travelled as: by it the next revision is opened.
    """

    schema_version: str = always(SCHEMA_VERSION)
    request_id: str
    revision: int
    tenant: str
    opened_at: UtcDatetime
    reason: str
    brief: str
    agent: AgentInfo | None = None
    session_id: str | None = None
    attempt: str
    message: Message

    def __post_init__(self) -> None:
        to_utc(self, "opened_at")


class EscalationAnswer(Contract, frozen=True, kw_only=True):
    """What a person answered. There is one for each escalation: whoever creates it first."""

    schema_version: str = always(SCHEMA_VERSION)
    request_id: str
    revision: int
    tenant: str
    text: str
    answered_by: str
    answered_at: UtcDatetime

    def __post_init__(self) -> None:
        to_utc(self, "answered_at")


def escalation_of(result: Result, message: Message) -> Escalation:
    """Return what a person is to see of an escalated ``result``, whose request travelled as ``message``."""
    return Escalation(
        request_id=result.request_id,
        revision=result.revision,
        tenant=result.tenant,
        opened_at=result.timings.finished_at,
        reason=_reason(result, message),
        brief=result.output,
        agent=result.agent,
        session_id=result.session_id,
        attempt=result.attempt,
        message=message,
    )


def _reason(result: Result, message: Message) -> str:
    if message.fallback_from:
        return message.fallback_code or "fallback"
    if result.error:
        return result.error.code
    label = message.intent.label if message.intent else ""
    return label if label in _TOLD_BY_INTENT else ABSTAINED

"""What came out of a request."""

from __future__ import annotations

from enum import StrEnum

from tasks.contracts.base import SCHEMA_VERSION, Contract, UtcDatetime, canonical


class Status(StrEnum):
    """How a request ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ESCALATED = "escalated"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class IntentInfo(Contract):
    """What the classifier said. ``confidence`` is a calibrated probability in 0..1."""

    label: str
    confidence: float
    model_version: str


class AgentInfo(Contract):
    """Who answered: the agent type and the model behind it."""

    type: str
    model: str


class ErrorInfo(Contract):
    """Why there is no answer: a stable code and a sentence."""

    code: str
    message: str


class Usage(Contract):
    """Tokens that the models of all turns read and wrote, and the number of tool calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    tool_calls: int = 0


class Timings(Contract):
    """When the request was where. ``classify_ms`` and ``agent_ms`` are wall time in milliseconds."""

    accepted_at: UtcDatetime
    routed_at: UtcDatetime | None = None
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime
    classify_ms: float | None = None
    agent_ms: float | None = None

    @property
    def latency_seconds(self) -> float:
        """Return the seconds from acceptance to the end."""
        return (self.finished_at - self.accepted_at).total_seconds()


class Step(Contract):
    """One thing that an agent did on the way: a tool call or a turn."""

    name: str
    detail: str = ""
    ok: bool = True
    milliseconds: float | None = None


class Result(Contract):
    """The one outcome of a revision of a request. ``attempt`` tells a retried write from a lost race."""

    schema_version: str = SCHEMA_VERSION
    request_id: str
    revision: int = 1
    tenant: str
    status: Status
    intent: IntentInfo | None = None
    agent: AgentInfo | None = None
    output: str = ""
    error: ErrorInfo | None = None
    usage: Usage = Usage()
    timings: Timings
    session_id: str | None = None
    steps: tuple[Step, ...] = ()
    request_digest: str
    attempt: str

    def to_bytes(self) -> bytes:
        """Return the canonical bytes that are stored and whose SHA-256 the audit names."""
        return canonical(self.model_dump(mode="json", exclude_none=True))

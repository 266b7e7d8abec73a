"""What came out of a request."""

from __future__ import annotations

from enum import StrEnum

from tasks.contracts.base import SCHEMA_VERSION, Contract, UtcDatetime, always, to_utc


class Status(StrEnum):
    """How a request ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ESCALATED = "escalated"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class IntentInfo(Contract, frozen=True, kw_only=True):
    """What the classifier said. ``confidence`` is a calibrated probability in 0..1."""

    label: str
    confidence: float
    model_version: str


class AgentInfo(Contract, frozen=True, kw_only=True):
    """Who answered: the agent type and the model behind it."""

    type: str
    model: str


class ErrorInfo(Contract, frozen=True, kw_only=True):
    """Why there is no answer: a stable code and a sentence."""

    code: str
    message: str


class Usage(Contract, frozen=True, kw_only=True):
    """Tokens that the models of all turns read and wrote, and the number of tool calls."""

    input_tokens: int = always(0)
    output_tokens: int = always(0)
    tool_calls: int = always(0)


class Timings(Contract, frozen=True, kw_only=True):
    """When the request was where. ``classify_ms`` and ``agent_ms`` are wall time in milliseconds."""

    accepted_at: UtcDatetime
    routed_at: UtcDatetime | None = None
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime
    classify_ms: float | None = None
    agent_ms: float | None = None

    def __post_init__(self) -> None:
        to_utc(self, "accepted_at", "routed_at", "started_at", "finished_at")

    @property
    def latency_seconds(self) -> float:
        """Return the seconds from acceptance to the end."""
        return (self.finished_at - self.accepted_at).total_seconds()


class Step(Contract, frozen=True, kw_only=True):
    """One thing that an agent did on the way: a tool call or a turn."""

    name: str
    detail: str = always("")
    ok: bool = always(True)
    milliseconds: float | None = None


class Result(Contract, frozen=True, kw_only=True):
    """The one outcome of a revision of a request. ``attempt`` tells a retried write from a lost race."""

    schema_version: str = always(SCHEMA_VERSION)
    request_id: str
    revision: int = always(1)
    tenant: str
    status: Status
    intent: IntentInfo | None = None
    agent: AgentInfo | None = None
    output: str = always("")
    error: ErrorInfo | None = None
    usage: Usage = always(Usage())
    timings: Timings
    session_id: str | None = None
    steps: tuple[Step, ...] = always(())
    request_digest: str
    attempt: str

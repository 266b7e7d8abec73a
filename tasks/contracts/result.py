"""What came out of a request."""

from __future__ import annotations

from collections.abc import Iterable
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
    """Why there is no answer: a stable code and a sentence; ``attempts`` is how many there were, where they ran out."""

    code: str
    message: str
    attempts: int | None = None


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
    """One thing that was done on the way: a tool call, or a step of the request's plan.

    A step of a plan has an ``agent``, and only that has what follows it: ``detail`` is then its instruction,
    ``depends_on`` are the names of others, ``steps`` its own tool calls, and ``status`` is None where it had not ended.
    """

    name: str
    detail: str = always("")
    ok: bool = always(True)
    milliseconds: float | None = None
    agent: AgentInfo | None = None
    status: Status | None = None
    error: ErrorInfo | None = None
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime | None = None
    usage: Usage | None = None
    depends_on: tuple[str, ...] | None = None
    steps: tuple[Step, ...] | None = None

    def __post_init__(self) -> None:
        to_utc(self, "started_at", "finished_at")


class Result(Contract, frozen=True, kw_only=True):
    """The one outcome of a revision of a request, or of the ``step`` of its plan.

    ``attempt`` tells a retried write from a lost race. ``usage`` has that of the steps of a plan in it.
    """

    schema_version: str = always(SCHEMA_VERSION)
    request_id: str
    revision: int = always(1)
    step: str | None = None
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


def total(usages: Iterable[Usage]) -> Usage:
    """Return what ``usages`` are together."""
    found = tuple(usages)
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in found),
        output_tokens=sum(usage.output_tokens for usage in found),
        tool_calls=sum(usage.tool_calls for usage in found),
    )


def own_usage(result: Result) -> Usage:
    """Return the usage of ``result`` without that of the steps of its plan."""
    steps = total(step.usage for step in result.steps if step.usage)
    return Usage(
        input_tokens=result.usage.input_tokens - steps.input_tokens,
        output_tokens=result.usage.output_tokens - steps.output_tokens,
        tool_calls=result.usage.tool_calls - steps.tool_calls,
    )

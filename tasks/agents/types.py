"""The agent port: what hop 2 hands to an agent, and what it gets back.

Nothing here imports AutoGen, so the port costs nothing where no agent runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tasks.contracts.result import Step, Usage
from tasks.settings import AgentSettings

HUMAN_ESCALATION: Final = "human_escalation"
"""The agent type whose answers are briefs for a person, not answers to the caller."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One finished tool call. ``arguments`` are as the model gave them, not redacted.

    ``error`` is what the agent was told when ``ok`` is false, else empty.
    """

    name: str
    arguments: dict[str, Any]
    ok: bool
    error: str
    milliseconds: float


@dataclass(frozen=True, slots=True)
class AgentTask:
    """One request for an agent.

    ``model`` overrides the agent's own. ``session_state`` is the ``session_state`` of the session's previous
    answer, ``None`` on its first turn and without a session. ``on_tool`` is called on the event loop, once
    for each finished tool call and before the answer; it must not block. ``permit`` is asked before each tool
    call, by the tool's name, and raises :class:`Denied` where the caller may not use it.
    """

    agent: AgentSettings
    text: str
    request_id: str = ""
    tenant: str = "default"
    model: str | None = None
    session_state: dict[str, Any] | None = None
    on_tool: Callable[[ToolCall], None] | None = None
    permit: Callable[[str], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """What the agent said. ``model`` names what really answered, an override and a fallback included.

    ``session_state`` is JSON-able and bounded. ``escalated`` means that a person has to answer.
    """

    output: str
    model: str
    usage: Usage = field(default_factory=Usage)
    steps: tuple[Step, ...] = ()
    session_state: dict[str, Any] | None = None
    escalated: bool = False


class AgentRunner(Protocol):
    """Runs one agent for one request. Safe to call concurrently on one event loop."""

    async def run(self, task: AgentTask) -> AgentAnswer:
        """Answer ``task``, within ``task.agent.deadline_seconds`` seconds.

        Raises:
            ModelError: the model could not answer, or the deadline passed. Trying again may help.
            ModelRefused: the model's endpoint refuses. Trying again does not help.
            SettingsError: the agent names a tool that does not exist.
            InvalidInput: ``session_state`` is not the state of a session.
        """
        ...

    async def close(self) -> None:
        """Close the connections of the running loop. Safe to call twice."""
        ...

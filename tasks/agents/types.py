"""The agent port: what hop 2 hands to an agent, and what it gets back.

Nothing here imports AutoGen, so the port costs nothing where no agent runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tasks.contracts.journal import CallOutcome, JournalKey, Scope
from tasks.contracts.result import Step, Usage, total
from tasks.settings import AgentSettings, Settings

HUMAN_ESCALATION: Final = "human_escalation"
"""The agent type whose answers are briefs for a person, not answers to the caller."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One finished tool call. ``arguments`` are as the model gave them, not redacted.

    ``error`` is what the agent was told when ``ok`` is false, ``code`` that error's; both else empty. ``replayed``: the
    call was made by an earlier attempt, and its outcome read from the journal.
    """

    name: str
    arguments: dict[str, Any]
    ok: bool
    error: str
    milliseconds: float
    code: str = ""
    replayed: bool = False


class Journal(Protocol):
    """Remembers the tool calls that must not happen twice. The real one is :mod:`tasks.stores.journal`."""

    async def calls(self, scope: Scope) -> dict[JournalKey, bool]:
        """Return the calls of ``scope`` that were begun or have ended; true for those that have ended."""
        ...

    async def begin(self, key: JournalKey) -> CallOutcome | None:
        """Record durably that the call begins; return its outcome where another attempt has made it since.

        Raises:
            CallInDoubt: another attempt began it and has not ended it.
            StoreError: it is not on record. The call must not be made.
        """
        ...

    async def end(self, key: JournalKey, outcome: CallOutcome) -> None:
        """Record durably how the call ended. Does nothing where that is on record already."""
        ...

    async def outcome(self, key: JournalKey) -> CallOutcome:
        """Return how the call ended; raises :class:`NotFound`."""
        ...


@dataclass(frozen=True, slots=True)
class Spent:
    """What an attempt has asked of its models so far: ``turns`` calls, and the tokens of ``usage``."""

    turns: int = 0
    usage: Usage = field(default_factory=Usage)

    def plus(self, answer: AgentAnswer) -> Spent:
        """Return this and what ``answer`` took."""
        return Spent(self.turns + answer.turns, total([self.usage, answer.usage]))


@dataclass(frozen=True, slots=True)
class AgentTask:
    """One request for an agent.

    ``model`` overrides the agent's own. ``session_state`` is the ``session_state`` of the session's previous
    answer, ``None`` on its first turn and without a session. ``on_tool`` is called on the event loop, once
    for each finished tool call and before the answer; it must not block. ``permit`` is asked before each tool
    call, by the tool's name, and raises :class:`Denied` where the caller may not use it. ``wanted`` is asked before
    each call of a model or a tool whether anybody still wants the answer, which costs nothing; it raises
    :class:`RequestEnded` or :class:`LeaseLost` where nobody does. ``revision`` and ``step`` say which part of the
    request this is. ``journal`` keeps calls that are not idempotent from being repeated; without one nothing does.
    ``attachments`` are the keys of objects that tools may read. ``spent`` counts against the agent's limits too: the
    attempt has used it up before.
    """

    agent: AgentSettings
    text: str
    request_id: str = ""
    tenant: str = "default"
    model: str | None = None
    session_state: dict[str, Any] | None = None
    on_tool: Callable[[ToolCall], None] | None = None
    permit: Callable[[str], Awaitable[None]] | None = None
    wanted: Callable[[], None] = lambda: None
    revision: int = 1
    step: str = ""
    journal: Journal | None = None
    attachments: tuple[str, ...] = ()
    spent: Spent = field(default_factory=Spent)

    @property
    def scope(self) -> Scope:
        """Return which step of which revision this is."""
        return Scope(self.tenant, self.request_id, self.revision, self.step)


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """What the agent said. ``model`` names what really answered, an override and a fallback included.

    ``session_state`` is JSON-able and bounded. ``escalated`` means that a person has to answer. ``usage`` and
    ``turns``, calls of models, are of this answer alone. ``steps`` are not redacted, and as long as what they tell.
    """

    output: str
    model: str
    usage: Usage = field(default_factory=Usage)
    steps: tuple[Step, ...] = ()
    session_state: dict[str, Any] | None = None
    escalated: bool = False
    turns: int = 0


class Planner(Protocol):
    """Writes the plan of a request, and the answer from what its steps found. Concurrency as in a runner."""

    async def draft(self, task: AgentTask) -> AgentAnswer | None:
        """Return what the model of ``task`` says when asked for a plan in JSON, unread; None where it cannot plan.

        Raises:
            ModelError: as :meth:`AgentRunner.run`.
            LimitExceeded: with ``task.spent`` the agent may not ask once more.
        """
        ...

    async def conclude(self, task: AgentTask, found: str, composed: str) -> AgentAnswer:
        """Answer ``task.text`` from ``found``, which tells what the steps did; with ``composed`` where no model can.

        Raises:
            ModelError: as :meth:`AgentRunner.run`.
        """
        ...


class AgentRunner(Protocol):
    """Runs one agent for one request. Safe to call concurrently on one event loop."""

    async def run(self, task: AgentTask) -> AgentAnswer:
        """Answer ``task``, within ``task.agent.deadline_seconds`` seconds.

        Raises:
            ModelError: the model could not answer, or the deadline passed. Trying again may help.
            ModelRefused: the model's endpoint refuses. Trying again does not help.
            SettingsError: the agent names a tool that does not exist.
            InvalidInput: ``session_state`` is not the state of a session.
            LimitExceeded: the agent used up its turns, tokens or tool calls.
            CallInDoubt: an earlier attempt began a call that is not idempotent, and nobody knows its end.
        """
        ...

    async def preload(self, models: Iterable[str]) -> None:
        """Make ready for ``models``, which are about to be asked. What fails is tried again when it is used."""
        ...

    async def configure(self, settings: Settings) -> None:
        """Let the names of models mean what ``settings`` say, from the next request on."""
        ...

    async def close(self) -> None:
        """Close the connections of the running loop. Safe to call twice."""
        ...

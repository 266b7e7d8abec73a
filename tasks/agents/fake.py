"""An agent runner in memory, for tests and for runs without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from tasks.agents.types import HUMAN_ESCALATION, AgentAnswer, AgentTask
from tasks.contracts.result import Usage
from tasks.settings import Settings

Reply = str | AgentAnswer | Exception | Callable[[AgentTask], "AgentAnswer | str"]
"""What the fake does: answer a text or a whole answer, raise an exception, or ask a function of the task."""


class FakeRunner:
    """Answers with ``reply``; at first with the items of ``script``, in order.

    ``delay`` is seconds before each answer. ``tasks`` keeps what was asked, ``closed`` tells whether
    :meth:`close` was called; ``preloaded`` and ``configured`` keep what came with those calls.
    """

    def __init__(self, reply: Reply = "done", *, script: Iterable[Reply] = (), delay: float = 0) -> None:
        self.tasks: list[AgentTask] = []
        self.closed = False
        self.preloaded: tuple[str, ...] = ()
        self.configured: list[Settings] = []
        self._reply = reply
        self._script = list(script)
        self._delay = delay

    async def run(self, task: AgentTask) -> AgentAnswer:
        """Record ``task`` and give the next reply."""
        self.tasks.append(task)
        if self._delay:
            await asyncio.sleep(self._delay)
        reply = self._script.pop(0) if self._script else self._reply
        if isinstance(reply, Exception):
            raise reply
        answer = reply(task) if callable(reply) else reply
        if isinstance(answer, AgentAnswer):
            return answer
        return AgentAnswer(
            output=answer,
            model="fake",
            session_state={"turns": (task.session_state or {}).get("turns", 0) + 1},
            escalated=task.agent.type == HUMAN_ESCALATION,
        )

    async def preload(self, models: Iterable[str]) -> None:
        """Record what was asked for."""
        self.preloaded = tuple(models)

    async def configure(self, settings: Settings) -> None:
        """Record the settings."""
        self.configured.append(settings)

    async def close(self) -> None:
        """Record that the runner was closed."""
        self.closed = True


class FakePlanner:
    """Drafts ``drafts`` in order, then the last one again; without any it cannot plan.

    Its answer is what it was told that the steps found, or with ``can_write`` false the composed one.
    """

    def __init__(self, *drafts: str | Exception, can_write: bool = True) -> None:
        self.asked: list[AgentTask] = []
        self.concluded: list[str] = []
        self._drafts = list(drafts)
        self._can_write = can_write

    async def draft(self, task: AgentTask) -> AgentAnswer | None:
        """Record ``task`` and give the next draft."""
        self.asked.append(task)
        if not self._drafts:
            return None
        draft = self._drafts.pop(0) if len(self._drafts) > 1 else self._drafts[0]
        if isinstance(draft, Exception):
            raise draft
        return AgentAnswer(output=draft, model="fake", usage=Usage(input_tokens=10, output_tokens=5), turns=1)

    async def conclude(self, task: AgentTask, found: str, composed: str) -> AgentAnswer:
        """Record ``found`` and answer with it, or with ``composed``."""
        self.concluded.append(found)
        state = {"turns": (task.session_state or {}).get("turns", 0) + 1}
        return AgentAnswer(output=found if self._can_write else composed, model="fake", session_state=state)

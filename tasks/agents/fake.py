"""An agent runner in memory, for tests and for runs without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from tasks.agents.types import HUMAN_ESCALATION, AgentAnswer, AgentTask

Reply = str | AgentAnswer | Exception | Callable[[AgentTask], "AgentAnswer | str"]
"""What the fake does: answer a text or a whole answer, raise an exception, or ask a function of the task."""


class FakeRunner:
    """Answers with ``reply``; at first with the items of ``script``, in order.

    ``delay`` is seconds before each answer. ``tasks`` keeps what was asked, ``closed`` tells whether
    :meth:`close` was called.
    """

    def __init__(self, reply: Reply = "done", *, script: Iterable[Reply] = (), delay: float = 0) -> None:
        self.tasks: list[AgentTask] = []
        self.closed = False
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

    async def close(self) -> None:
        """Record that the runner was closed."""
        self.closed = True

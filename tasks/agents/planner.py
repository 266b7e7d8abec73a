"""The planner on AutoGen's model clients: one call for the plan, one run for the answer from what the steps found."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, Final

from autogen_core.models import AssistantMessage, LLMMessage, SystemMessage, UserMessage
from pydantic import BaseModel

from tasks.agents.meter import Meter, MeteredClient
from tasks.agents.models.registry import ModelRegistry
from tasks.agents.state import bounded, messages_of, with_turn
from tasks.agents.types import AgentAnswer, AgentRunner, AgentTask
from tasks.contracts.plan import OnFailure
from tasks.errors import ModelError, SluiceError

COMPOSED: Final = "composed (no language model)"
"""What results call the model where the answer was put together from the steps' outputs by rule."""
_CONCLUDE: Final = (
    "Agents have carried out the steps of the user's request. Write the answer to the request from what they found. "
    "Be correct and concise; never invent what no step found; say what is missing where a step has no answer."
)


class DraftStep(BaseModel):
    """What a model fills in; read by :mod:`tasks.agents.drafts`, which is more patient."""

    id: str
    agent: str
    instruction: str
    depends_on: list[str]
    on_failure: OnFailure


class Draft(BaseModel):
    """A plan as a model writes it."""

    steps: list[DraftStep]


class TeamPlanner:
    """The :class:`~tasks.agents.types.Planner` on AutoGen. ``runner`` writes the answers."""

    def __init__(self, models: ModelRegistry, runner: AgentRunner) -> None:
        self._models = models
        self._runner = runner

    async def draft(self, task: AgentTask) -> AgentAnswer | None:
        """See :class:`tasks.agents.types.Planner`."""
        agent = task.agent
        if not self._plans(task):
            return None
        task.wanted()
        messages = [
            SystemMessage(content=agent.instructions),
            *_past(task),
            UserMessage(content=task.text, source="user"),
        ]
        using = self._models.using(
            task.model or agent.model, temperature=agent.temperature, max_tokens=agent.max_tokens
        )
        meter = Meter(agent, task.spent)
        end = time.monotonic() + agent.deadline_seconds
        try:
            async with asyncio.timeout(agent.deadline_seconds), using as (client, label):
                result = await MeteredClient(client, meter).create(messages, json_output=Draft)
        except SluiceError:
            raise
        except TimeoutError as error:
            if time.monotonic() < end:
                raise
            raise ModelError(f"deadline: no plan within {agent.deadline_seconds:g} s") from error
        except Exception as error:
            # AutoGen's own exceptions may quote the conversation, so only their kind is passed on.
            raise ModelError(f"agent {agent.type} failed to plan: {type(error).__name__}") from error
        text = result.content if isinstance(result.content, str) else ""
        return AgentAnswer(output=text, model=client.label or label, usage=meter.usage(0), turns=meter.turns)

    async def conclude(self, task: AgentTask, found: str, composed: str) -> AgentAnswer:
        """See :class:`tasks.agents.types.Planner`."""
        if not self._plans(task):
            state = with_turn(task.session_state, task.text, composed, source=task.agent.type)
            return AgentAnswer(output=composed, model=COMPOSED, session_state=state)
        # Its tools were the steps', and its team's members are not asked: this is one text from another.
        words = "\n\n".join(part for part in (task.agent.instructions, _CONCLUDE) if part)
        agent = task.agent.changed(instructions=words, tools=(), team=None)
        answer = await self._runner.run(replace(task, agent=agent, text=found))
        return replace(answer, session_state=_retold(answer.session_state, task.text))

    def _plans(self, task: AgentTask) -> bool:
        return self._models.resolve(task.model or task.agent.model).settings.plans


def _past(task: AgentTask) -> list[LLMMessage]:
    """Return what was said in the session before."""
    kinds = {"UserMessage": UserMessage, "AssistantMessage": AssistantMessage}
    said = messages_of(bounded(task.session_state)) if task.session_state else []
    texts = [message for message in said if message.get("type") in kinds and isinstance(message.get("content"), str)]
    return [
        kinds[message["type"]](content=message["content"], source=str(message.get("source", "user")))
        for message in texts
    ]


def _retold(state: dict[str, Any] | None, text: str) -> dict[str, Any] | None:
    """Return ``state`` with ``text`` as what the user said last, in place of what the steps found."""
    if state is None:
        return None
    messages = messages_of(state)
    users = [place for place, message in enumerate(messages) if message.get("type") == "UserMessage"]
    if not users:
        return state
    told = [message | {"content": text} if place == users[-1] else message for place, message in enumerate(messages)]
    return state | {"llm_context": state["llm_context"] | {"messages": told}}

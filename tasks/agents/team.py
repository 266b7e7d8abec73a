"""The agent runner on AutoGen: a fresh assistant for each request, thrown away after it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import TextMessage
from autogen_core import CancellationToken
from pydantic import ValidationError

from tasks.agents.instructions import instructions_for
from tasks.agents.models.registry import ModelRegistry
from tasks.agents.state import bounded
from tasks.agents.tools.bench import Bench
from tasks.agents.tools.registry import ToolRegistry
from tasks.agents.types import HUMAN_ESCALATION, AgentAnswer, AgentTask, ToolCall
from tasks.contracts.result import Step, Usage
from tasks.errors import InvalidInput, ModelError, SluiceError
from tasks.settings import Settings

_GRACE_SECONDS: Final = 1.0
"""How long a cancelled run may take to let go, before it is left to itself."""
_MAX_DETAIL: Final = 300


class TeamRunner:
    """The :class:`~tasks.agents.types.AgentRunner` on AutoGen.

    Runs any number of requests at once on one event loop. ``models`` and ``tools`` replace what ``settings``
    lead to; ``environ`` is where API keys are read from.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        models: ModelRegistry | None = None,
        tools: ToolRegistry | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._models = models or ModelRegistry(settings, environ=environ)
        self._tools = tools or ToolRegistry(settings.tools)

    async def run(self, task: AgentTask) -> AgentAnswer:
        """Answer ``task``; see :meth:`tasks.agents.types.AgentRunner.run`."""
        steps: list[Step] = []

        def finished(call: ToolCall) -> None:
            steps.append(_step(call))
            if task.on_tool is not None:
                task.on_tool(call)

        bench = Bench(
            self._tools.for_agent(task.agent), budget=task.agent.max_tool_calls, on_call=finished, permit=task.permit
        )
        client, label = self._models.client(task.agent, task.model)
        assistant = AssistantAgent(
            name=task.agent.type,
            model_client=client,
            workbench=bench,
            system_message=instructions_for(task.agent),
            reflect_on_tool_use=True,
            max_tool_iterations=task.agent.max_tool_calls,
        )
        await _load(assistant, task.session_state)
        response = await _within_deadline(assistant, bench, task)
        # Only now: AutoGen's state is not consistent while it runs.
        state = bounded(dict(await assistant.save_state()))
        return AgentAnswer(
            output=response.chat_message.to_text().strip(),
            model=client.label or label,
            usage=_usage(response, len(steps)),
            steps=tuple(steps),
            session_state=state,
            escalated=task.agent.type == HUMAN_ESCALATION,
        )

    async def close(self) -> None:
        """Close the running loop's connections to models."""
        await self._models.close()


async def _load(assistant: AssistantAgent, state: dict[str, Any] | None) -> None:
    if not state:
        return
    try:
        await assistant.load_state(bounded(state))
    except ValidationError as error:
        # Without pydantic's words: they quote the conversation.
        raise InvalidInput("session_state: is not the saved state of an agent") from error


async def _within_deadline(assistant: AssistantAgent, bench: Bench, task: AgentTask) -> Response:
    """Run ``assistant`` once, and have let go of it when this returns or raises.

    The deadline is our own: AutoGen waits for ever where a tool call is cancelled at the wrong moment.
    """
    token = CancellationToken()
    work = asyncio.ensure_future(assistant.on_messages([TextMessage(content=task.text, source="user")], token))
    try:
        done, _ = await asyncio.wait({work}, timeout=task.agent.deadline_seconds)
    except asyncio.CancelledError:
        await _let_go(work, bench, token)
        raise
    if not done:
        await _let_go(work, bench, token)
        raise ModelError(f"deadline: agent {task.agent.type} gave no answer within {task.agent.deadline_seconds:g} s")
    try:
        return work.result()
    except SluiceError:
        raise
    except asyncio.CancelledError as error:
        raise ModelError(f"agent {task.agent.type} was cancelled from within") from error
    except Exception as error:
        # AutoGen's own exceptions may quote the conversation, so only their kind is passed on.
        raise ModelError(f"agent {task.agent.type} failed: {type(error).__name__}") from error


async def _let_go(work: asyncio.Future[Response], bench: Bench, token: CancellationToken) -> None:
    token.cancel()
    work.cancel()
    running: set[asyncio.Future[Any]] = {work, *bench.running}
    await asyncio.wait(running, timeout=_GRACE_SECONDS)
    for left in running:
        # Whatever comes of it later is of no interest, and must not be reported as forgotten.
        left.add_done_callback(lambda future: future.cancelled() or future.exception())


def _usage(response: Response, tool_calls: int) -> Usage:
    messages = [*(response.inner_messages or ()), response.chat_message]
    spent = [message.models_usage for message in messages if message.models_usage is not None]
    return Usage(
        input_tokens=sum(usage.prompt_tokens for usage in spent),
        output_tokens=sum(usage.completion_tokens for usage in spent),
        tool_calls=tool_calls,
    )


def _step(call: ToolCall) -> Step:
    detail = call.error or json.dumps(call.arguments, ensure_ascii=False, default=str)
    return Step(name=call.name, detail=detail[:_MAX_DETAIL], ok=call.ok, milliseconds=round(call.milliseconds, 3))

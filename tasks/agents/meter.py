"""Counts what one attempt asks of its models, and ends it where that is more than its agent type may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autogen_core import CancellationToken
from autogen_core.models import CreateResult, LLMMessage
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from tasks.agents.models.base import ModelClient, ToolChoice
from tasks.agents.types import Spent
from tasks.contracts.result import Usage
from tasks.errors import LimitExceeded, SluiceError
from tasks.settings import AgentSettings


class Meter:
    """What one attempt has used, all members of a team together; ``before`` was used before this meter ran.

    ``fault`` is the first error that a model raised: AutoGen's teams pass on nothing but its words. ``running`` are the
    tasks that wait for a model now: those of AutoGen's teams do not end with the team. ``wanted`` is
    that of :class:`tasks.agents.types.AgentTask`.
    """

    def __init__(self, agent: AgentSettings, before: Spent, wanted: Callable[[], None] = lambda: None) -> None:
        self._agent = agent
        self._before = before
        self._wanted = wanted
        self.turns = 0
        self._tool_calls = 0
        self._input = 0
        self._output = 0
        self.fault: SluiceError | None = None
        self.running: set[asyncio.Task[Any]] = set()

    def usage(self, tool_calls: int) -> Usage:
        """Return the tokens so far, and ``tool_calls`` that were made."""
        return Usage(input_tokens=self._input, output_tokens=self._output, tool_calls=tool_calls)

    def turn(self) -> None:
        """Count a call of a model that is about to be made.

        Raises:
            LimitExceeded: there is none left, or there are no tokens left.
            RequestEnded, LeaseLost: nobody wants the answer any more.
        """
        self._wanted()
        before = self._before.usage
        used = before.input_tokens + before.output_tokens + self._input + self._output
        turns, limit = self._before.turns + self.turns, self._agent.max_total_tokens
        if limit is not None and used >= limit:
            raise self._exceeded("max_total_tokens", f"{used} of {limit} tokens are used")
        if turns >= self._agent.max_turns:
            raise self._exceeded("max_turns", f"no answer after {turns} calls of a model")
        self.turns += 1

    def add(self, result: CreateResult) -> None:
        """Count what the model said.

        Raises:
            LimitExceeded: it wants more tool calls than there may be.
        """
        self._input += result.usage.prompt_tokens
        self._output += result.usage.completion_tokens
        if isinstance(result.content, str):
            return
        self._tool_calls += len(result.content)
        if self._tool_calls > self._agent.max_tool_calls:
            raise self._exceeded("max_tool_calls", f"the model wants {self._tool_calls}")

    def _exceeded(self, key: str, why: str) -> LimitExceeded:
        return LimitExceeded(f"agent {self._agent.type} exceeds {key}={getattr(self._agent, key)}: {why}")


class MeteredClient(ModelClient):
    """``client``, with its calls counted by ``meter``."""

    def __init__(self, client: ModelClient, meter: Meter) -> None:
        super().__init__(client.context_tokens)
        self._client = client
        self._meter = meter

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        """Return what the client returns.

        Raises:
            LimitExceeded: the attempt may not ask once more, or wants too many tool calls.
        """
        task = asyncio.current_task()
        if task:
            self._meter.running.add(task)
        try:
            self._meter.turn()
            result = await self._client.create(
                messages,
                tools=tools,
                tool_choice=tool_choice,
                json_output=json_output,
                extra_create_args=extra_create_args or {},
                cancellation_token=cancellation_token,
            )
            self._meter.add(result)
        except SluiceError as error:
            self._meter.fault = self._meter.fault or error
            raise
        finally:
            if task:
                self._meter.running.discard(task)
        return result

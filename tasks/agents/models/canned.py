"""A model that is none: one fixed sentence after a delay. For tests and benchmarks only.

It stands in for the time that a model takes, so that the pipeline around it is what is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from autogen_core import CancellationToken
from autogen_core.models import CreateResult, LLMMessage, RequestUsage
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from tasks.agents.models.base import ModelClient, ToolChoice
from tasks.errors import ModelRefused

ANSWER: Final = "[canned, no language model] This is the same answer for everybody."
_CONTEXT_TOKENS: Final = 8192


class CannedClient(ModelClient):
    """Answers :data:`ANSWER` after ``delay_seconds``; calls no tools, uses no tokens."""

    def __init__(self, delay_seconds: float) -> None:
        super().__init__(context_tokens=_CONTEXT_TOKENS)
        self._delay = delay_seconds

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
        """Wait, then return the sentence.

        Raises:
            ModelRefused: the answer should be JSON.
        """
        if json_output:
            raise ModelRefused("the canned model has one sentence and no JSON; configure a language model")
        if self._delay:
            await asyncio.sleep(self._delay)
        return CreateResult(finish_reason="stop", content=ANSWER, usage=RequestUsage(0, 0), cached=False)

"""The responder without a language model: it repeats the most telling sentences of what it was given.

It says so in every answer. It is there so that the pipeline runs, and can be tested and measured, where no
model is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import (
    CreateResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    RequestUsage,
    UserMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from tasks.agents.models.base import ModelClient, ToolChoice, schemas, text_of
from tasks.agents.models.digest import MAX_READ, tell_result, telling
from tasks.agents.models.propose import propose
from tasks.errors import ModelRefused

LABEL: Final = "[extractive, no language model] "
NAME: Final = "extractive (no language model)"


class ExtractiveClient(ModelClient):
    """Answers without a model, in microseconds, the same way every time. No tokens are used."""

    def __init__(self) -> None:
        super().__init__(context_tokens=MAX_READ // 3)

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
        """Return sentences of the last message, or the tool call that it asks for literally.

        Raises:
            ModelRefused: the answer should have a schema, which takes a model to fill.
        """
        if isinstance(json_output, type):
            raise ModelRefused("the extractive responder cannot fill a schema; configure a language model")
        last = messages[-1] if messages else None
        if isinstance(last, FunctionExecutionResultMessage):
            told = "\n".join(tell_result(result.name, result.content) for result in last.content)
            return _text(told, json_output=bool(json_output))
        asked = text_of(last) if isinstance(last, UserMessage) else ""
        proposal = propose(asked, schemas(tools)) if tools and tool_choice != "none" else None
        if proposal:
            name, arguments = proposal
            call = FunctionCall(id=f"call_{len(messages)}", name=name, arguments=json.dumps(arguments))
            return CreateResult(finish_reason="function_calls", content=[call], usage=RequestUsage(0, 0), cached=False)
        return _text(telling(asked), json_output=bool(json_output))


def _text(text: str, *, json_output: bool) -> CreateResult:
    content = json.dumps({"label": LABEL.strip(), "text": text}) if json_output else LABEL + text
    return CreateResult(finish_reason="stop", content=content, usage=RequestUsage(0, 0), cached=False)

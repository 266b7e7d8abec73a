"""A client that waits only so long for a busy model: the embedded one has few slots and little speed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from autogen_core import CancellationToken
from autogen_core.models import CreateResult, LLMMessage
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from tasks.agents.models.base import ModelClient
from tasks.agents.models.extractive import ExtractiveClient
from tasks.errors import ModelError, ModelRefused
from tasks.log import get_logger

log = get_logger()

_BUSY_LABEL: Final = "extractive (no language model, embedded busy)"


class PatientClient(ExtractiveClient):
    """Asks ``model``; what it has not answered after ``seconds`` is answered by extraction, and ``label`` says so.

    One for each request. A model that refuses is an error all the same: that is a fault of the configuration.
    """

    def __init__(self, model: ModelClient, *, label: str, seconds: float) -> None:
        super().__init__()
        self.label = label
        self._model = model
        self._seconds = seconds

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Tool | Literal["auto", "required", "none"] = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        """Return the model's answer, or the extractive one.

        Raises:
            ModelRefused: the model's endpoint refuses.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._model.create(
                    messages,
                    tools=tools,
                    tool_choice=tool_choice,
                    json_output=json_output,
                    extra_create_args=extra_create_args or {},
                    cancellation_token=cancellation_token,
                )
        except ModelRefused:
            raise
        except (TimeoutError, ModelError) as error:
            log.info("embedded model too busy", waited_seconds=self._seconds, error=str(error))
            self.label = _BUSY_LABEL
        return await super().create(
            messages, tools=tools, tool_choice=tool_choice, json_output=json_output, extra_create_args=extra_create_args
        )

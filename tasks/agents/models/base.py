"""What this package's model clients share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

from autogen_core import CancellationToken
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    CreateResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    ModelFamily,
    ModelInfo,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from tasks.agents.models.fit import ChatMessage, estimate, size

ToolChoice = Tool | Literal["auto", "required", "none"]

INFO = ModelInfo(
    vision=False,
    function_calling=True,
    json_output=True,
    structured_output=True,
    family=ModelFamily.UNKNOWN,
    multiple_system_messages=True,
)


class ModelClient(ChatCompletionClient):
    """A chat completion client with the parts that are the same for every model here.

    ``context_tokens`` is what the model can read and write together.
    """

    component_type = "model"
    label: str = ""
    """What results call the model that answered, where the client knows better than its maker; else empty."""

    def __init__(self, context_tokens: int) -> None:
        self.context_tokens = context_tokens
        self._total = RequestUsage(0, 0)
        self._last = RequestUsage(0, 0)

    @property
    def model_info(self) -> ModelInfo:
        """What AutoGen may ask of the model. Tools always: where the model knows none, they are emulated."""
        return INFO

    @property
    def capabilities(self) -> Any:
        """The older spelling of :attr:`model_info`."""
        return INFO

    def actual_usage(self) -> RequestUsage:
        """Return the tokens of the last call."""
        return self._last

    def total_usage(self) -> RequestUsage:
        """Return the tokens of all calls of this client."""
        return self._total

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """Return about how many tokens ``messages`` and ``tools`` are."""
        return sum(map(size, to_chat(messages))) + sum(estimate(str(schema)) for schema in schemas(tools))

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """Return about how many tokens are left in the context."""
        return self.context_tokens - self.count_tokens(messages, tools=tools)

    async def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """Yield what :meth:`create` returns, a text in one piece first: nobody here reads half an answer."""
        result = await self.create(
            messages,
            tools=tools,
            tool_choice=tool_choice,
            json_output=json_output,
            extra_create_args=extra_create_args or {},
            cancellation_token=cancellation_token,
        )
        if isinstance(result.content, str):
            yield result.content
        yield result

    async def close(self) -> None:
        """Do nothing: connections belong to whoever made them."""

    def _to_config(self) -> BaseModel:
        raise NotImplementedError("clients are made by the registry from the settings, not from AutoGen's components")

    def _spent(self, usage: RequestUsage) -> RequestUsage:
        self._last = usage
        self._total = RequestUsage(
            self._total.prompt_tokens + usage.prompt_tokens,
            self._total.completion_tokens + usage.completion_tokens,
        )
        return usage


def schemas(tools: Sequence[Tool | ToolSchema]) -> list[ToolSchema]:
    """Return the schemas of ``tools``."""
    # A schema is a dict; asking whether it is a Tool, a protocol, takes longer than a whole extractive answer.
    return [tool if isinstance(tool, dict) else tool.schema for tool in tools]


def to_chat(messages: Sequence[LLMMessage]) -> list[ChatMessage]:
    """Return AutoGen's messages as those of the chat completions protocol."""
    return [chat for message in messages for chat in _one_to_chat(message)]


def _one_to_chat(message: LLMMessage) -> list[ChatMessage]:
    if isinstance(message, SystemMessage):
        return [{"role": "system", "content": message.content}]
    if isinstance(message, UserMessage):
        return [{"role": "user", "content": text_of(message)}]
    if isinstance(message, FunctionExecutionResultMessage):
        return [
            {"role": "tool", "tool_call_id": result.call_id, "name": result.name, "content": result.content}
            for result in message.content
        ]
    return [_assistant(message)]


def _assistant(message: AssistantMessage) -> ChatMessage:
    if isinstance(message.content, str):
        return {"role": "assistant", "content": message.content}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.content
    ]
    return {"role": "assistant", "content": message.thought, "tool_calls": calls}


def text_of(message: UserMessage) -> str:
    """Return what the user wrote, without images."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part for part in message.content if isinstance(part, str))

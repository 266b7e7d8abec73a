"""The client for models behind the chat completions protocol: OpenAI's API and everything that speaks it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import CreateResult, FinishReasons, LLMMessage, RequestUsage
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from tasks.agents.models import emulate
from tasks.agents.models.backend import Backend
from tasks.agents.models.base import ModelClient, ToolChoice, schemas, to_chat
from tasks.agents.models.endpoint import Endpoint
from tasks.agents.models.fit import ChatMessage, estimate, fit, size
from tasks.agents.models.propose import Proposal, propose
from tasks.agents.models.stream import Payload
from tasks.errors import ModelError, ModelRefused
from tasks.settings import ModelSettings

T = TypeVar("T")

_FINISH: Final[dict[str, FinishReasons]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "function_calls",
    "function_call": "function_calls",
    "content_filter": "content_filter",
}
_LEAST_PROMPT: Final = 64


def open_endpoint(endpoint: Endpoint, settings: ModelSettings) -> Backend:
    """Return the backend of the model behind ``endpoint``."""

    def client(temperature: float, max_tokens: int | None) -> ModelClient:
        return OpenAIClient(endpoint, settings, temperature=temperature, max_tokens=max_tokens)

    return Backend(client, endpoint.warm, endpoint.close)


class OpenAIClient(ModelClient):
    """A model of an endpoint, with one agent's temperature and token limit. Cheap: it owns no connection.

    Messages are cut to ``settings.context_tokens`` less ``max_tokens``, by estimate. Where
    ``settings.native_tools`` is false, tool calls are emulated, see :mod:`tasks.agents.models.emulate`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        settings: ModelSettings,
        *,
        temperature: float,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__(settings.context_tokens)
        self._endpoint = endpoint
        self._native = settings.native_tools
        self._temperature = temperature
        self._max_tokens = max_tokens or settings.max_tokens

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
        """Return one answer: text or tool calls.

        Raises:
            ModelRefused: the endpoint refuses, or its content filter withheld the answer.
            ModelError: the endpoint failed, or the answer is none.
        """
        chat, offered = to_chat(messages), schemas(tools)
        chosen = await _linked(self._choose(chat, offered, tool_choice), cancellation_token)
        if chosen.content:
            return chosen
        payload = self._payload(chat, offered, tool_choice, json_output, extra_create_args)
        answer = await _linked(self._endpoint.post(payload, tokens=self._tokens(payload)), cancellation_token)
        result = self._result(_choice(answer), answer.get("usage"))
        if not self._native and isinstance(result.content, str):
            result.content = emulate.results_first(chat, result.content)
        result.usage = _sum(result.usage, chosen.usage)
        return result

    def _payload(
        self,
        chat: list[ChatMessage],
        tools: list[ToolSchema],
        tool_choice: ToolChoice,
        json_output: bool | type[BaseModel] | None,
        extra: Mapping[str, Any] | None,
    ) -> Payload:
        native = self._native and tools
        taken = sum(estimate(json.dumps(tool)) for tool in tools) if native else 0
        budget = max(self.context_tokens - self._max_tokens - taken, _LEAST_PROMPT)
        payload: Payload = {
            "model": self._endpoint.model,
            "messages": fit(chat if self._native else emulate.as_text(chat), budget),
            "temperature": self._temperature,
            "max_tokens": self._max_tokens,
        }
        if native:
            payload["tools"] = [{"type": "function", "function": tool} for tool in tools]
            payload["tool_choice"] = _named(tool_choice)
        if json_output:
            payload["response_format"] = _json_format(json_output)
        return payload | dict(extra or {})

    def _tokens(self, payload: Payload) -> int:
        """Return about what prompt and answer take together; zero where nobody counts."""
        if not self._endpoint.counts_tokens:
            return 0
        tools = estimate(json.dumps(payload["tools"])) if "tools" in payload else 0
        return sum(map(size, payload["messages"])) + tools + self._max_tokens

    async def _choose(self, chat: list[ChatMessage], tools: list[ToolSchema], tool_choice: ToolChoice) -> CreateResult:
        """Return the emulated tool call; a result without content where the model is to answer in text."""
        if self._native or not tools or tool_choice == "none" or not chat or chat[-1]["role"] != "user":
            return _call(None, RequestUsage(0, 0))
        asked = chat[-1]["content"]
        proposal = propose(asked, tools)
        if proposal:
            return _call(proposal, RequestUsage(0, 0))
        choosable = emulate.choosable(tools)
        if not choosable:
            return _call(None, RequestUsage(0, 0))
        answer = await self._endpoint.post(
            {
                "model": self._endpoint.model,
                "messages": emulate.choice_messages(asked, choosable),
                "temperature": 0,
                "max_tokens": emulate.CHOICE_TOKENS,
                "response_format": emulate.choice_format(choosable),
            }
        )
        usage = self._spent(_usage(answer.get("usage")))
        text = _choice(answer).get("message", {}).get("content") or ""
        return _call(emulate.read_choice(text, choosable), usage)

    def _result(self, choice: Payload, usage: Payload | None) -> CreateResult:
        message = choice.get("message") or {}
        finish = _FINISH.get(choice.get("finish_reason") or "", "unknown")
        calls = [_function_call(call) for call in message.get("tool_calls") or ()]
        text = message.get("content") or ""
        thought = message.get("reasoning_content") or (text if calls else None)
        spent = self._spent(_usage(usage))
        if calls:
            return CreateResult(
                finish_reason="function_calls",
                content=calls,
                usage=spent,
                cached=False,
                thought=thought or None,
            )
        self._check(text, finish)
        if not self._native and finish == "length":
            text = emulate.whole_sentences(text)
        return CreateResult(finish_reason=finish, content=text, usage=spent, cached=False, thought=thought)

    def _check(self, text: str, finish: FinishReasons) -> None:
        if finish == "content_filter":
            raise ModelRefused(f"model {self._endpoint.model!r}: its content filter withheld the answer")
        if not text.strip():
            why = f"max_tokens={self._max_tokens} were used up" if finish == "length" else f"it ended with {finish!r}"
            raise ModelError(f"model {self._endpoint.model!r} gave an empty answer: {why}")


async def _linked(work: Coroutine[Any, Any, T], token: CancellationToken | None) -> T:
    if token is None:
        return await work
    task = asyncio.ensure_future(work)
    token.link_future(task)
    return await task


def _choice(answer: Payload) -> Payload:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ModelError("the model's answer holds no choices")
    return choices[0]


def _call(proposal: Proposal | None, usage: RequestUsage) -> CreateResult:
    content = []
    if proposal:
        name, arguments = proposal
        content = [FunctionCall(id=f"call_{uuid.uuid4().hex[:12]}", name=name, arguments=json.dumps(arguments))]
    return CreateResult(finish_reason="function_calls", content=content, usage=usage, cached=False)


def _function_call(call: Payload) -> FunctionCall:
    function = call.get("function") or {}
    # Some servers give no id, or arguments that are already decoded.
    arguments = function.get("arguments") or "{}"
    return FunctionCall(
        id=call.get("id") or f"call_{uuid.uuid4().hex[:12]}",
        name=function.get("name") or "",
        arguments=arguments if isinstance(arguments, str) else json.dumps(arguments),
    )


def _usage(usage: Payload | None) -> RequestUsage:
    counted = usage or {}
    return RequestUsage(int(counted.get("prompt_tokens") or 0), int(counted.get("completion_tokens") or 0))


def _sum(one: RequestUsage, other: RequestUsage) -> RequestUsage:
    return RequestUsage(one.prompt_tokens + other.prompt_tokens, one.completion_tokens + other.completion_tokens)


def _named(tool_choice: ToolChoice) -> str | Payload:
    if isinstance(tool_choice, str):
        return tool_choice
    return {"type": "function", "function": {"name": tool_choice.name}}


def _json_format(json_output: bool | type[BaseModel]) -> Payload:
    if isinstance(json_output, bool):
        return {"type": "json_object"}
    schema = {"name": json_output.__name__, "schema": json_output.model_json_schema()}
    return {"type": "json_schema", "json_schema": schema}

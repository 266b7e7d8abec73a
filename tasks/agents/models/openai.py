"""The client for models behind the chat completions protocol: OpenAI's API and everything that speaks it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import CreateResult, FinishReasons, LLMMessage, RequestUsage
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from tasks.agents.models import emulate
from tasks.agents.models.base import ModelClient, ToolChoice, schemas, to_chat
from tasks.agents.models.endpoint import Endpoint, Payload
from tasks.agents.models.fit import ChatMessage, estimate, fit
from tasks.agents.models.propose import Proposal, propose
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
        answer = await _linked(self._endpoint.post(payload), cancellation_token)
        result = self._result(_choice(answer), answer.get("usage"))
        if not self._native and isinstance(result.content, str):
            result.content = emulate.results_first(chat, result.content)
        result.usage = _sum(result.usage, chosen.usage)
        return result

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
        """Yield the text in pieces as it comes, then what :meth:`create` would return. Raises the same."""
        chat, offered = to_chat(messages), schemas(tools)
        chosen = await _linked(self._choose(chat, offered, tool_choice), cancellation_token)
        if chosen.content:
            yield chosen
            return
        payload = self._payload(chat, offered, tool_choice, json_output, extra_create_args)
        whole, usage = _Whole(), None
        facts = "" if self._native else emulate.results_first(chat, "")
        if facts:
            yield facts
        async for event in self._endpoint.stream(payload | {"stream_options": {"include_usage": True}}):
            usage = event.get("usage") or usage
            piece = whole.add(event)
            if piece:
                yield piece
            if cancellation_token is not None and cancellation_token.is_cancelled():
                raise asyncio.CancelledError
        result = self._result(whole.choice(), usage)
        if facts:
            result.content = facts + str(result.content)
        result.usage = _sum(result.usage, chosen.usage)
        yield result

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
        budget = max(self._context_tokens - self._max_tokens - taken, _LEAST_PROMPT)
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


class _Whole:
    """Puts the pieces of a stream together again."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._thought: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._finish = ""

    def add(self, event: Payload) -> str:
        """Take one event and return its piece of the text."""
        choices = event.get("choices") or [{}]
        delta = choices[0].get("delta") or {}
        self._finish = choices[0].get("finish_reason") or self._finish
        self._thought.append(delta.get("reasoning_content") or "")
        for piece in delta.get("tool_calls") or ():
            call = self._calls.setdefault(piece.get("index", 0), {"id": "", "name": "", "arguments": ""})
            function = piece.get("function") or {}
            call["id"] = piece.get("id") or call["id"]
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""
        text = delta.get("content") or ""
        self._text.append(text)
        return str(text)

    def choice(self) -> Payload:
        """Return what the same answer would be in one piece."""
        calls = [
            {"id": call["id"], "function": {"name": call["name"], "arguments": call["arguments"]}}
            for _, call in sorted(self._calls.items())
        ]
        message = {
            "content": "".join(self._text),
            "tool_calls": calls,
            "reasoning_content": "".join(self._thought) or None,
        }
        return {"message": message, "finish_reason": self._finish}


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

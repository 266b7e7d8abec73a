"""Models behind Anthropic's and Azure's own APIs, through AutoGen's extensions and their SDKs.

Rate, breaker and further tries are ours (:mod:`tasks.agents.models.upstream`); the SDKs' own tries are off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from autogen_core import CancellationToken
from autogen_core.models import ChatCompletionClient, CreateResult, LLMMessage, SystemMessage
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from tasks.agents.models.backend import Backend
from tasks.agents.models.base import INFO, ModelClient, ToolChoice
from tasks.agents.models.dialect import Dialect
from tasks.agents.models.endpoint import one_line, where
from tasks.agents.models.transport import is_loopback
from tasks.agents.models.upstream import Failure, Upstream
from tasks.errors import ModelError, ModelRefused, NotReady
from tasks.settings import ModelSettings

_SDKS: Final = {"openai", "anthropic", "httpx"}
_BAD_REQUEST: Final = 400

Parameters = dict[str, Any]
Make = Callable[[Parameters], ChatCompletionClient]
"""Makes AutoGen's client for one request, on shared connections. Its parameters hold at least ``model``."""


def open_extension(model: str, settings: ModelSettings, environ: Mapping[str, str]) -> Backend:
    """Return the backend of ``model``. Importing the SDK takes seconds: call it in a thread.

    Raises:
        NotReady: the extra of the provider is not installed.
        ModelRefused: there is no key.
    """
    key = environ.get(settings.api_key_env, "")
    if not key and not is_loopback(settings.base_url):
        raise ModelRefused(f"{where(model, settings)} needs a key: set the environment variable {settings.api_key_env}")
    try:
        make, sdk = _OPENERS[settings.provider](settings, key or "none")
    except ImportError as error:
        extra = settings.provider
        raise NotReady(f"model {model!r}: provider {extra} is not installed; pip install 'sluice[{extra}]'") from error
    upstream = Upstream(where(model, settings), settings)
    dialect = Dialect()

    def client(temperature: float, max_tokens: int | None) -> ModelClient:
        parameters = {"model": model, "temperature": temperature, "max_tokens": max_tokens or settings.max_tokens}
        return ExtensionClient(make, parameters, settings, upstream=upstream, dialect=dialect, key=key)

    return Backend(client, close=sdk.close)


def _anthropic(settings: ModelSettings, key: str) -> tuple[Make, Any]:
    from anthropic import AsyncAnthropic
    from autogen_ext.models.anthropic import BaseAnthropicChatCompletionClient

    timeout = settings.timeout_seconds
    sdk = AsyncAnthropic(api_key=key, base_url=settings.base_url, timeout=timeout, max_retries=0)
    return lambda parameters: BaseAnthropicChatCompletionClient(sdk, create_args=parameters, model_info=INFO), sdk


def _azure(settings: ModelSettings, key: str) -> tuple[Make, Any]:
    from autogen_ext.models.openai import BaseOpenAIChatCompletionClient
    from openai import AsyncAzureOpenAI

    sdk = AsyncAzureOpenAI(
        api_key=key,
        azure_endpoint=settings.base_url,
        api_version=settings.api_version,
        timeout=settings.timeout_seconds,
        max_retries=0,
    )
    return lambda parameters: BaseOpenAIChatCompletionClient(sdk, create_args=parameters, model_info=INFO), sdk


_OPENERS: Final = {"anthropic": _anthropic, "azure": _azure}


class ExtensionClient(ModelClient):
    """AutoGen's client for one request, behind ``upstream``. Messages are not cut to the context."""

    def __init__(
        self,
        make: Make,
        parameters: Parameters,
        settings: ModelSettings,
        *,
        upstream: Upstream,
        dialect: Dialect,
        key: str,
    ) -> None:
        super().__init__(settings.context_tokens)
        self._make = make
        self._parameters = parameters
        self._schema_by_words = settings.provider == "anthropic"
        self._upstream = upstream
        self._dialect = dialect
        self._key = key

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
            ModelRefused: the API refuses.
            ModelError: it failed, or the answer is empty.
        """
        if self._schema_by_words and isinstance(json_output, type):
            messages, json_output = _asking_for(json_output, messages), None
        tokens = 0
        if self._upstream.rate.counts_tokens:
            tokens = self.count_tokens(messages, tools=tools) + int(self._parameters["max_tokens"])

        async def send() -> CreateResult:
            while True:
                spoken = self._dialect.spoken(self._parameters)
                try:
                    return await self._make(spoken).create(
                        messages,
                        tools=tools,
                        tool_choice=tool_choice,
                        json_output=json_output,
                        extra_create_args=extra_create_args or {},
                        cancellation_token=cancellation_token,
                    )
                except Exception as error:
                    if not self._learns(error, spoken):
                        raise self._translated(error) from error

        result = await self._upstream.call(send, tokens=tokens)
        self._upstream.rate.settle(tokens, result.usage.prompt_tokens + result.usage.completion_tokens)
        if not result.content:
            raise ModelError(f"{self._upstream.name}: gave an empty answer ({result.finish_reason})")
        self._spent(result.usage)
        return result

    def _learns(self, error: Exception, spoken: Parameters) -> bool:
        return getattr(error, "status_code", None) == _BAD_REQUEST and self._dialect.learn(spoken, str(error))

    def _translated(self, error: Exception) -> Exception:
        """Return ``error`` of an SDK as ours. Both SDKs are made alike: a status, a response, a message."""
        status = getattr(error, "status_code", None)
        if isinstance(status, int):
            headers = getattr(getattr(error, "response", None), "headers", {})
            return self._upstream.refusal(status, one_line(_message(error), self._key), headers)
        if type(error).__module__.partition(".")[0] in _SDKS:
            return Failure(type(error).__name__)
        # AutoGen's own words may quote the conversation.
        return ModelRefused(f"{self._upstream.name}: the request could not be made: {type(error).__name__}")


def _message(error: Exception) -> str:
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    return str(inner.get("message", "")) if isinstance(inner, dict) else ""


def _asking_for(shape: type[BaseModel], messages: Sequence[LLMMessage]) -> list[LLMMessage]:
    schema = json.dumps(shape.model_json_schema())
    return [SystemMessage(content=f"Answer with JSON of this schema, and nothing else: {schema}"), *messages]

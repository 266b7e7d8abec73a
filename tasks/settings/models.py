"""Where model names lead, and how their endpoints are treated."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from tasks.settings.base import Count, Positive, Section

Provider = Literal["openai", "anthropic", "azure", "extractive", "canned"]

_ENDPOINTS: Final[dict[str, tuple[str, str]]] = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": ("https://api.anthropic.com", "ANTHROPIC_API_KEY"),
    "azure": ("", "AZURE_OPENAI_API_KEY"),
}
"""The default address and the default variable of the key, by provider."""


class BreakerSettings(Section, frozen=True, kw_only=True):
    """``failures`` in a row open the breaker; after ``open_seconds`` one request may try whether it closes again."""

    failures: Count = 10
    open_seconds: Positive = 15


class ModelSettings(Section, frozen=True, kw_only=True):
    """Where a model name leads. The limits hold for one worker process.

    ``openai`` is any endpoint that speaks the chat completions protocol; ``anthropic`` and ``azure`` go through
    AutoGen's extensions. ``api_key_env`` names the environment variable that holds the key. ``extractive`` answers
    with sentences of the request itself: no language model. ``canned`` answers one sentence after ``delay_seconds``,
    for tests and benchmarks only. ``plans``: it can split a request into steps, and write an answer from what they
    found.
    """

    provider: Provider = "openai"
    base_url: str = ""
    model: str | None = None
    api_key_env: str = ""
    api_version: str = "2024-10-21"
    native_tools: bool = True
    plans: bool = True
    stream: bool = False
    max_tokens: Count = 512
    context_tokens: Count = 8192
    timeout_seconds: Positive = 60
    keep_alive_seconds: Annotated[float, msgspec.Meta(ge=0)] = 30
    requests_per_second: Positive | None = None
    burst: Count | None = None
    tokens_per_minute: Count | None = None
    breaker: BreakerSettings = BreakerSettings()
    delay_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        """Fill in what the provider says."""
        url, key = _ENDPOINTS.get(self.provider, ("", ""))
        msgspec.structs.force_setattr(self, "base_url", self.base_url or url)
        msgspec.structs.force_setattr(self, "api_key_env", self.api_key_env or key)
        if self.provider in {"extractive", "canned"}:
            msgspec.structs.force_setattr(self, "plans", False)


class ModelCacheSettings(Section, frozen=True, kw_only=True):
    """A worker keeps the clients of ``size`` models, those used last. Those of ``preload`` are made at its start."""

    size: Count = 16
    preload: tuple[str, ...] = ()

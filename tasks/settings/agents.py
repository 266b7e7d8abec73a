"""Agent types, the models that they ask, and the tools that they use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from tasks.settings.base import Count, Positive, Section


class AgentSettings(Section, frozen=True, kw_only=True):
    """One agent type. ``model`` names an entry of ``models`` or a model of the default endpoint."""

    type: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,62}\Z")]
    model: str | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.2
    max_tokens: Count | None = None
    tools: tuple[str, ...] = ()
    fallback: str | None = None
    instructions: str = ""
    deadline_seconds: Positive = 120
    max_tool_calls: Count = 4


class ModelSettings(Section, frozen=True, kw_only=True):
    """Where a model name leads.

    ``openai`` is any endpoint that speaks the chat completions protocol; ``api_key_env`` names the environment
    variable that holds its key. ``extractive`` answers with sentences of the request itself: no language model.
    ``canned`` answers one sentence after ``delay_seconds``: for tests and benchmarks only.
    """

    provider: Literal["openai", "extractive", "canned"] = "openai"
    base_url: str = "https://api.openai.com/v1"
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    native_tools: bool = True
    max_tokens: Count = 512
    context_tokens: Count = 8192
    timeout_seconds: Positive = 60
    delay_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0


class SqlToolSettings(Section, frozen=True, kw_only=True):
    """``database`` is a SQLite file; by default a small sample shop is made in memory."""

    database: Path | None = None
    max_rows: Count = 50
    timeout_seconds: Positive = 5


class ApiToolSettings(Section, frozen=True, kw_only=True):
    """``allowed_hosts`` are ``host`` or ``host:port``; nothing else is called. Deny by default."""

    allowed_hosts: tuple[str, ...] = ()
    allowed_methods: tuple[str, ...] = ("GET", "HEAD")
    timeout_seconds: Positive = 10
    max_bytes: Count = 64 * 1024


class ToolSettings(Section, frozen=True, kw_only=True):
    """Settings of the built-in tools."""

    sql_parser: SqlToolSettings = SqlToolSettings()
    api_caller: ApiToolSettings = ApiToolSettings()


DEFAULT_AGENTS: Final = (
    AgentSettings(type="planner", fallback="human_escalation"),
    AgentSettings(type="executor", tools=("sql_parser", "api_caller"), fallback="human_escalation"),
    AgentSettings(type="responder", fallback="human_escalation"),
    AgentSettings(type="human_escalation"),
)

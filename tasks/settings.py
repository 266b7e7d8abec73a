"""One frozen settings object, from ``pipeline.yaml`` and the environment.

Every key can be overridden by ``SLUICE_<KEY>``, nested keys by ``SLUICE_<KEY>__<KEY>``; lists and maps are JSON.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableVariable

from tasks import keys
from tasks.contracts.base import explain
from tasks.contracts.request import Intent
from tasks.errors import InvalidInput, SettingsError

DEFAULT_FILE: Final = "pipeline.yaml"
ENVIRONMENT_FILE: Final = "env"
"""In the stack's folder: where its servers are, as ``NAME=value`` lines, while it runs."""
EMBEDDED: Final = "embedded"
"""The model name that means: the embedded small model where it runs, else the extractive responder."""

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen part of the settings in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AgentSettings(Section):
    """One agent type. ``model`` names an entry of ``models`` or a model of the default endpoint."""

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
    model: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.2
    max_tokens: Count | None = None
    tools: tuple[str, ...] = ()
    fallback: str | None = None
    instructions: str = ""
    deadline_seconds: Positive = 120
    max_tool_calls: Count = 4


class ModelSettings(Section):
    """Where a model name leads.

    ``openai`` is any endpoint that speaks the chat completions protocol; ``api_key_env`` names the environment
    variable that holds its key. ``extractive`` answers with sentences of the request itself: no language model.
    """

    provider: Literal["openai", "extractive"] = "openai"
    base_url: str = "https://api.openai.com/v1"
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    native_tools: bool = True
    max_tokens: Count = 512
    context_tokens: Count = 8192
    timeout_seconds: Positive = 60


class RoutingSettings(Section):
    """Which agent type serves which intent, and who gets what nobody is sure about.

    ``threshold`` replaces the confidence threshold that came with the model (0..1).
    """

    intents: dict[Intent, str] = Field(default_factory=dict)
    fallback: str = "human_escalation"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None

    @field_validator("intents")
    @classmethod
    def _with_defaults(cls, value: dict[Intent, str]) -> dict[Intent, str]:
        return {**_DEFAULT_ROUTES, **value}


_DEFAULT_ROUTES: Final = {
    Intent.PLAN_TASK: "planner",
    Intent.QUERY_DATA: "executor",
    Intent.CALL_API: "executor",
    Intent.ANSWER_QUESTION: "responder",
    Intent.SUMMARIZE_TEXT: "responder",
    Intent.DRAFT_TEXT: "responder",
    Intent.TALK_TO_HUMAN: "human_escalation",
}


class IntentSettings(Section):
    """The classifier. ``model_dir`` defaults to the model in the package.

    ``max_batch`` is texts per inference, ``max_batch_tokens`` the padded length times the count.
    """

    model_dir: Path | None = None
    threads: Count = 1
    max_batch: Count = 32
    max_batch_tokens: Count = 4096


class PoolSettings(Section):
    """How a pool scales: worker processes, and requests at a time in each."""

    max_workers: Count = 1
    concurrency: Count = 16
    requests_per_worker: Count = 32


class ScalingSettings(Section):
    """``pools`` overrides the defaults by pool name (``intent``, ``agents.<type>``)."""

    polling_seconds: Positive = 1
    cooldown_seconds: Positive = 10
    grace_seconds: Positive = 30
    default: PoolSettings = PoolSettings()
    pools: dict[str, PoolSettings] = Field(default_factory=dict)


class QueueSettings(Section):
    """``inline_bytes``: a larger body travels by object storage. ``attempts``: after these, the dead letter."""

    visibility_seconds: Annotated[int, Field(ge=10)] = 60
    attempts: Count = 5
    inline_bytes: Count = 64 * 1024
    retry_seconds: Positive = 2
    hand_back_seconds: Positive = 5


class LeaseSettings(Section):
    """Times of the register in seconds. A lease lasts three heartbeats and counts as lapsed two later."""

    heartbeat_seconds: Positive = 5
    sweep_seconds: Positive = 2
    lost_seconds: Positive = 10
    unpublished_seconds: Positive = 10
    remember_seconds: Count = 24 * 3600

    @property
    def lease_seconds(self) -> float:
        """Return how long a lease lasts without a heartbeat."""
        return 3 * self.heartbeat_seconds


class AlertRule(Section):
    """Which kind of event raises an alert, and how loud."""

    type: str
    severity: Literal["low", "medium", "high", "critical"]


class AuditSettings(Section):
    """``retention_days`` is the audit bucket's default retention; ``sensitive_fields`` are redacted everywhere."""

    retention_days: Annotated[int, Field(ge=1, le=36500)] = 365
    sensitive_fields: tuple[str, ...] = (
        "api_key",
        "password",
        "secret",
        "token",
        "authorization",
        "credit_card",
    )
    alert_rules: tuple[AlertRule, ...] = ()
    flush_seconds: Positive = 0.5


class SqlToolSettings(Section):
    """``database`` is a SQLite file; by default a small sample shop is made in memory."""

    database: Path | None = None
    max_rows: Count = 50
    timeout_seconds: Positive = 5


class ApiToolSettings(Section):
    """``allowed_hosts`` are ``host`` or ``host:port``; nothing else is called. Deny by default."""

    allowed_hosts: tuple[str, ...] = ()
    allowed_methods: tuple[str, ...] = ("GET", "HEAD")
    timeout_seconds: Positive = 10
    max_bytes: Count = 64 * 1024


class ToolSettings(Section):
    """Settings of the built-in tools."""

    sql_parser: SqlToolSettings = SqlToolSettings()
    api_caller: ApiToolSettings = ApiToolSettings()


_DEFAULT_AGENTS: Final = (
    AgentSettings(type="planner", fallback="human_escalation"),
    AgentSettings(type="executor", tools=("sql_parser", "api_caller"), fallback="human_escalation"),
    AgentSettings(type="responder", fallback="human_escalation"),
    AgentSettings(type="human_escalation"),
)


class Settings(BaseSettings):
    """Everything that can be configured. Frozen; load it once with :func:`load`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="SLUICE_", env_nested_delimiter="__", env_ignore_empty=True
    )

    redis_url: str = "redis://127.0.0.1:6379/0"
    s3_endpoint: str | None = None
    region: str = "us-east-1"
    data_bucket: str = "sluice-data"
    audit_bucket: str = "sluice-audit"
    default_model: str = EMBEDDED
    embedded_model_url: str | None = None
    embedded_patience_seconds: Positive = 30
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    agents: tuple[AgentSettings, ...] = _DEFAULT_AGENTS
    models: dict[str, ModelSettings] = Field(default_factory=dict)
    routing: RoutingSettings = RoutingSettings(intents={})
    intent: IntentSettings = IntentSettings()
    scaling: ScalingSettings = ScalingSettings()
    queue: QueueSettings = QueueSettings()
    leases: LeaseSettings = LeaseSettings()
    auditing: AuditSettings = AuditSettings()
    tools: ToolSettings = ToolSettings()

    @field_validator("agents")
    @classmethod
    def _complete_agents(cls, value: tuple[AgentSettings, ...]) -> tuple[AgentSettings, ...]:
        named = [agent.type for agent in value]
        twice = {name for name in named if named.count(name) > 1}
        if twice:
            raise ValueError(f"agent type listed twice: {', '.join(sorted(twice))}")
        return value + tuple(agent for agent in _DEFAULT_AGENTS if agent.type not in named)

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> Self:
        types = set(self.agent_types)
        targets = {f"routing.intents.{intent}": target for intent, target in self.routing.intents.items()}
        targets["routing.fallback"] = self.routing.fallback
        targets |= {f"agents.{agent.type}.fallback": agent.fallback for agent in self.agents if agent.fallback}
        for key, target in targets.items():
            if target not in types:
                raise ValueError(f"{key} names {target!r}, which is not an agent type ({', '.join(sorted(types))})")
        unknown = set(self.scaling.pools) - set(self.pools)
        if unknown:
            raise ValueError(
                f"scaling.pools names no pool: {', '.join(sorted(unknown))}; pools: {', '.join(self.pools)}"
            )
        return self

    @property
    def agent_types(self) -> tuple[str, ...]:
        """Return the configured agent types."""
        return tuple(agent.type for agent in self.agents)

    @property
    def pools(self) -> tuple[str, ...]:
        """Return every pool: the intent pool, then one for each agent type."""
        return (keys.INTENT_POOL, *(keys.agent_pool(name) for name in self.agent_types))

    def agent(self, agent_type: str) -> AgentSettings:
        """Return the settings of ``agent_type``; raises :class:`InvalidInput` where there is none."""
        for agent in self.agents:
            if agent.type == agent_type:
                return agent
        raise InvalidInput(f"agent type {agent_type!r} is not configured; there are {', '.join(self.agent_types)}")

    def agent_for(self, intent: str) -> str:
        """Return the agent type that serves ``intent``; the fallback where none does."""
        by_label = cast("Mapping[str, str]", self.routing.intents)  # an Intent is its label
        return by_label.get(intent, self.routing.fallback)

    def pool(self, name: str) -> PoolSettings:
        """Return how the pool ``name`` scales."""
        if name not in self.pools:
            raise InvalidInput(f"no pool {name!r}; there are {', '.join(self.pools)}")
        return self.scaling.pools.get(name, self.scaling.default)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, which arrives as the init arguments."""
        return env_settings, init_settings


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise SettingsError(f"{path}: the top level must be a map of keys")
    return data


def home() -> Path:
    """Return the folder of the embedded stack: ``$SLUICE_HOME``, else ``.sluice`` here."""
    return Path(os.environ.get("SLUICE_HOME") or ".sluice")


def adopt_embedded_stack() -> None:
    """Point this process at the embedded stack, unless ``SLUICE_REDIS_URL`` points it elsewhere already."""
    file = home() / ENVIRONMENT_FILE
    if os.environ.get("SLUICE_REDIS_URL") or not file.is_file():
        return
    for line in file.read_text("utf-8").splitlines():
        name, _, value = line.partition("=")
        if name:
            os.environ[name] = value


def load(path: Path | None = None) -> Settings:
    """Read the settings from ``path``, else ``$SLUICE_CONFIG``, else ``./pipeline.yaml`` where it exists.

    Where the embedded stack runs here and nothing else is configured, its servers are used.

    Raises:
        SettingsError: names the file and every key that is wrong.
    """
    adopt_embedded_stack()
    named = path or (Path(os.environ["SLUICE_CONFIG"]) if os.environ.get("SLUICE_CONFIG") else None)
    file = named or Path(DEFAULT_FILE)
    values = _read_yaml(file) if named or file.exists() else {}
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(f"{file} or the environment: {explain(error)}") from error
    except UnreadableVariable as error:
        raise SettingsError(f"the environment: {error}; lists and maps are written as JSON") from error

"""The shape of the settings: one frozen object. :mod:`tasks.settings_load` reads it from a file and the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import msgspec

from tasks import keys
from tasks.contracts.base import Label
from tasks.contracts.words import Intent
from tasks.errors import InvalidInput

EMBEDDED: Final = "embedded"
"""The model name that means: the embedded small model where it runs, else the extractive responder."""

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Family = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,62}\Z")]
"""The name of a line of versions of an intent model."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frozen part of the settings. Types and bounds are checked where one is read, not where one is constructed."""

    def changed(self, **fields: Any) -> Self:
        """Return a copy with other values."""
        return msgspec.structs.replace(self, **fields)


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


class RoutingSettings(Section, frozen=True, kw_only=True):
    """Which agent type serves which intent, and who gets what nobody is sure about, or has no route.

    ``intents`` adds to the routes of the packaged model's labels. ``threshold`` replaces the confidence threshold
    that came with the model (0..1).
    """

    intents: dict[Label, str] = msgspec.field(default_factory=dict)
    fallback: str = "human_escalation"
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None

    def __post_init__(self) -> None:
        """Add the routes that were left out."""
        msgspec.structs.force_setattr(self, "intents", {**_DEFAULT_ROUTES, **self.intents})


_DEFAULT_ROUTES: Final = {
    Intent.PLAN_TASK.value: "planner",
    Intent.QUERY_DATA.value: "executor",
    Intent.CALL_API.value: "executor",
    Intent.ANSWER_QUESTION.value: "responder",
    Intent.SUMMARIZE_TEXT.value: "responder",
    Intent.DRAFT_TEXT.value: "responder",
    Intent.TALK_TO_HUMAN.value: "human_escalation",
}


class IntentSettings(Section, frozen=True, kw_only=True):
    """The classifier. ``model_dir``, where it is set, is the model, and nothing else is looked at.

    Else the promoted version of ``family`` serves, and the model in the package until there is one. ``tenants`` gives
    tenants families of their own. ``cache_dir`` keeps fetched versions; ``cache_mb`` bounds the loaded ones.

    ``max_batch`` is texts per inference, ``max_batch_tokens`` the padded length times the count.
    ``latency_ms`` is the objective from arrival to answer: no batch is held for more beyond it.
    """

    model_dir: Path | None = None
    family: Family = "intent"
    tenants: dict[str, Family] = msgspec.field(default_factory=dict)
    refresh_seconds: Positive = 10
    cache_dir: Path | None = None
    cache_mb: Positive = 256
    threads: Count = 1
    max_batch: Count = 32
    max_batch_tokens: Count = 4096
    latency_ms: Positive = 50


class PoolSettings(Section, frozen=True, kw_only=True):
    """How a pool scales: worker processes, and requests at a time in each."""

    max_workers: Count = 1
    concurrency: Count = 16
    requests_per_worker: Count = 32


class ScalingSettings(Section, frozen=True, kw_only=True):
    """``pools`` overrides the defaults by pool name (``intent``, ``agents.<type>``)."""

    polling_seconds: Positive = 1
    cooldown_seconds: Positive = 10
    grace_seconds: Positive = 30
    default: PoolSettings = PoolSettings()
    pools: dict[str, PoolSettings] = msgspec.field(default_factory=dict)


class QueueSettings(Section, frozen=True, kw_only=True):
    """``inline_bytes``: a larger body travels by object storage. ``attempts``: after these, the dead letter."""

    visibility_seconds: Annotated[int, msgspec.Meta(ge=10)] = 30
    attempts: Count = 5
    inline_bytes: Count = 64 * 1024
    retry_seconds: Positive = 2
    hand_back_seconds: Positive = 5


class LeaseSettings(Section, frozen=True, kw_only=True):
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


AlertType = Literal[
    "permission_violation",
    "model_override",
    "intent_override",
    "grant_forged",
    "message_quarantined",
    "message_replayed",
    "audit_gap",
    "dead_letter",
    "model_rejected",
    "quota_exceeded",
    "request_rejected",
    "attempt_failed",
]


class AlertRule(Section, frozen=True, kw_only=True):
    """Which kind of event raises an alert, and how loud: the ``threshold``-th of one tenant within ``window_seconds``.

    Until the window ends there is no second one.
    """

    type: AlertType
    severity: Literal["low", "medium", "high", "critical"]
    threshold: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    window_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 300


class AlertTargets(Section, frozen=True, kw_only=True):
    """Where alerts go beside the log: a URL, and the ARN of an SNS topic.

    ``webhook_secret_file`` holds what the webhook's calls are signed with; ``$SLUICE_ALERT_WEBHOOK_SECRET`` goes before
    it.
    """

    webhook: Annotated[str, msgspec.Meta(pattern="^https?://")] | None = None
    webhook_secret_file: Path | None = None
    topic: Annotated[str, msgspec.Meta(pattern="^arn:[a-z-]+:sns:")] | None = None


class AuditSettings(Section, frozen=True, kw_only=True):
    """``retention_days`` is the audit bucket's default retention; ``sensitive_fields`` are redacted everywhere.

    ``detect`` adds personal data that is redacted too. ``commitment_key_file`` holds the key of the commitments in the
    marks, see :mod:`tasks.access.commitments`; ``$SLUICE_COMMITMENT_KEY`` goes before it.

    There is a checkpoint every ``seal_seconds``; each is also written to ``witness_bucket``. With ``immutable``
    workers, sweeper and sealer start only where the audit bucket locks its objects for ``retention_days`` and one more.
    """

    retention_days: Annotated[int, msgspec.Meta(ge=1, le=36500)] = 365
    sensitive_fields: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = (
        "api_key",
        "password",
        "secret",
        "token",
        "authorization",
        "credit_card",
    )
    detect: tuple[Literal["email", "phone"], ...] = ()
    commitment_key_file: Path | None = None
    alert_rules: tuple[AlertRule, ...] = ()
    alerts: AlertTargets = AlertTargets()
    flush_seconds: Positive = 0.5
    seal_seconds: Positive = 60
    immutable: bool = False
    witness_bucket: str | None = None


class SigningSettings(Section, frozen=True, kw_only=True):
    """Where keys are: a file, ``env:NAME``, ``secretsmanager://REGION/NAME`` or ``kms://REGION/ID?name=NAME``.

    ``keys`` are what this process signs with, the preferred one first; ``ring`` is whom it trusts, with scopes.
    """

    keys: tuple[str, ...] = ()
    ring: str | None = None


class GrantSettings(Section, frozen=True, kw_only=True):
    """``mode`` ``open`` checks no signature and no role: for development only.

    ``identity`` names the key that the Python client and the command line sign with. A grant ends at the request's
    deadline, else after ``max_age_days``. A revocation holds everywhere ``revocation_seconds`` after it was made.
    """

    mode: Literal["signed", "open"] = "signed"
    identity: str | None = None
    audience: str = "sluice"
    max_age_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 14
    revocation_seconds: Annotated[float, msgspec.Meta(ge=0, le=300)] = 5


class PolicySettings(Section, frozen=True, kw_only=True):
    """``dir`` holds the policy files (``*.cedar``); they replace those of the package."""

    dir: Path | None = None


class TenantQuota(Section, frozen=True, kw_only=True):
    """What one tenant may have. Left out: as much as it likes.

    ``max_running`` requests are in the queues or run at a time; more wait in the register, up to ``max_waiting`` of
    them; still more are refused. Budgets are for a day in UTC; ``money_per_day`` is in the currency of
    ``quotas.prices``.
    """

    max_waiting: Annotated[int, msgspec.Meta(ge=0)] | None = None
    max_running: Count | None = None
    tokens_per_day: Count | None = None
    money_per_day: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Price(Section, frozen=True, kw_only=True):
    """What a model costs: money for a million tokens that it reads, and that it writes."""

    input: Annotated[float, msgspec.Meta(ge=0)]
    output: Annotated[float, msgspec.Meta(ge=0)]


class QuotaSettings(Section, frozen=True, kw_only=True):
    """``tenants`` stand in place of ``default`` as a whole. ``prices`` are by the name of the model in the result."""

    default: TenantQuota = TenantQuota()
    tenants: dict[str, TenantQuota] = msgspec.field(default_factory=dict)
    prices: dict[str, Price] = msgspec.field(default_factory=dict)
    retry_seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 5

    def of(self, tenant: str) -> TenantQuota:
        """Return the quota of ``tenant``."""
        return self.tenants.get(tenant, self.default)


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


_DEFAULT_AGENTS: Final = (
    AgentSettings(type="planner", fallback="human_escalation"),
    AgentSettings(type="executor", tools=("sql_parser", "api_caller"), fallback="human_escalation"),
    AgentSettings(type="responder", fallback="human_escalation"),
    AgentSettings(type="human_escalation"),
)


class Settings(Section, frozen=True, kw_only=True):
    """Everything that can be configured. Load it once with :func:`tasks.settings_load.load`."""

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
    models: dict[str, ModelSettings] = msgspec.field(default_factory=dict)
    routing: RoutingSettings = RoutingSettings()
    intent: IntentSettings = IntentSettings()
    scaling: ScalingSettings = ScalingSettings()
    queue: QueueSettings = QueueSettings()
    leases: LeaseSettings = LeaseSettings()
    auditing: AuditSettings = AuditSettings()
    signing: SigningSettings = SigningSettings()
    grants: GrantSettings = GrantSettings()
    policy: PolicySettings = PolicySettings()
    quotas: QuotaSettings = QuotaSettings()
    tools: ToolSettings = ToolSettings()

    def __post_init__(self) -> None:
        """Add the agent types that were left out; raise :class:`ValueError` where a name leads nowhere."""
        named = [agent.type for agent in self.agents]
        missing = tuple(agent for agent in _DEFAULT_AGENTS if agent.type not in named)
        msgspec.structs.force_setattr(self, "agents", (*self.agents, *missing))
        if wrong := "; ".join(self._contradictions()):
            raise ValueError(wrong)

    def _contradictions(self) -> Iterator[str]:
        types = self.agent_types
        if twice := {name for name in types if types.count(name) > 1}:
            yield f"agents: agent type listed twice: {', '.join(sorted(twice))}"
        targets = {f"routing.intents.{intent}": target for intent, target in self.routing.intents.items()}
        targets["routing.fallback"] = self.routing.fallback
        targets |= {f"agents.{agent.type}.fallback": agent.fallback for agent in self.agents if agent.fallback}
        for key, target in targets.items():
            if target not in types:
                yield f"{key} names {target!r}, which is not an agent type ({', '.join(sorted(set(types)))})"
        quotas = {"default": self.quotas.default, **self.quotas.tenants}
        if not self.quotas.prices and (spenders := [name for name, quota in quotas.items() if quota.money_per_day]):
            yield f"quotas: money_per_day of {', '.join(spenders)} needs quotas.prices to count by"
        if unknown := set(self.scaling.pools) - set(self.pools):
            yield f"scaling.pools names no pool: {', '.join(sorted(unknown))}; pools: {', '.join(self.pools)}"

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
        return self.routing.intents.get(intent, self.routing.fallback)

    def pool(self, name: str) -> PoolSettings:
        """Return how the pool ``name`` scales."""
        if name not in self.pools:
            raise InvalidInput(f"no pool {name!r}; there are {', '.join(self.pools)}")
        return self.scaling.pools.get(name, self.scaling.default)

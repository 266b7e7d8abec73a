"""The settings as one frozen object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from tasks import keys
from tasks.errors import InvalidInput
from tasks.settings.agents import DEFAULT_AGENTS, AgentSettings, ModelSettings, ToolSettings
from tasks.settings.base import EMBEDDED, Positive, Section
from tasks.settings.doors import EventSettings, HttpSettings
from tasks.settings.queues import LeaseSettings, PoolSettings, QueueSettings, ScalingSettings
from tasks.settings.routing import IntentSettings, RoutingSettings
from tasks.settings.trust import AuditSettings, GrantSettings, PolicySettings, QuotaSettings, SigningSettings


class Settings(Section, frozen=True, kw_only=True):
    """Everything that can be configured. Load it once with :func:`tasks.settings_load.load`.

    Left out, ``broker_url`` is the Redis of ``redis_url``; ``sqs://HOST/ACCOUNT/NAME`` are a deployment's SQS queues.
    """

    redis_url: str = "redis://127.0.0.1:6379/0"
    broker_url: str | None = None
    s3_endpoint: str | None = None
    region: str = "us-east-1"
    data_bucket: str = "sluice-data"
    audit_bucket: str = "sluice-audit"
    default_model: str = EMBEDDED
    embedded_model_url: str | None = None
    embedded_patience_seconds: Positive = 30
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    agents: tuple[AgentSettings, ...] = DEFAULT_AGENTS
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
    http: HttpSettings = HttpSettings()
    events: EventSettings = EventSettings()

    def __post_init__(self) -> None:
        """Add the agent types that were left out; raise :class:`ValueError` where a name leads nowhere."""
        named = [agent.type for agent in self.agents]
        missing = tuple(agent for agent in DEFAULT_AGENTS if agent.type not in named)
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

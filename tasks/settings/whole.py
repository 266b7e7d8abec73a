"""The settings as one frozen object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from tasks import keys
from tasks.errors import InvalidInput
from tasks.settings.agents import DEFAULT_AGENTS, AgentSettings
from tasks.settings.base import EMBEDDED, Contradiction, Place, Positive, Section
from tasks.settings.callbacks import CallbackSettings
from tasks.settings.doors import EventSettings, HttpSettings
from tasks.settings.models import ModelCacheSettings, ModelSettings
from tasks.settings.queues import (
    CANCEL_MARGIN_SECONDS,
    LEAST_GRACE_SECONDS,
    LeaseSettings,
    PoolSettings,
    QueueSettings,
    ScalingSettings,
)
from tasks.settings.routing import IntentSettings, RoutingSettings
from tasks.settings.sessions import SessionSettings
from tasks.settings.tools import ToolSettings
from tasks.settings.trust import AuditSettings, GrantSettings, PolicySettings, QuotaSettings, SigningSettings

DATA_BUCKET: Final = "sluice-data"
AUDIT_BUCKET: Final = "sluice-audit"
"""What the embedded stack calls its buckets. On AWS names are worldwide: these are somebody else's."""


class Settings(Section, frozen=True, kw_only=True):
    """Everything that can be configured. Load it once with :func:`tasks.settings_load.load`.

    ``redis_url`` and ``broker_url`` may be the address of a secret that holds it, ``secretsmanager://REGION/NAME``.
    ``redis_durable`` is your word that it keeps what it acknowledged and evicts nothing, where it does not tell itself.
    Left out, ``broker_url`` is the Redis of ``redis_url``; ``sqs://HOST/ACCOUNT/NAME`` are a deployment's SQS queues,
    ``amqp://HOST/VHOST`` and ``amqps://`` a RabbitMQ.
    """

    redis_url: str = "redis://127.0.0.1:6379/0"
    redis_durable: bool = False
    broker_url: str | None = None
    s3_endpoint: str | None = None
    region: str = "us-east-1"
    data_bucket: str = DATA_BUCKET
    audit_bucket: str = AUDIT_BUCKET
    default_model: str = EMBEDDED
    embedded_model_url: str | None = None
    embedded_patience_seconds: Positive = 30
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    agents: tuple[AgentSettings, ...] = DEFAULT_AGENTS
    models: dict[str, ModelSettings] = msgspec.field(default_factory=dict)
    model_cache: ModelCacheSettings = ModelCacheSettings()
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
    callbacks: CallbackSettings = CallbackSettings()
    sessions: SessionSettings = SessionSettings()

    def __post_init__(self) -> None:
        """Add the agent types that were left out; raise :class:`Contradiction` where keys do not go together."""
        named = [agent.type for agent in self.agents]
        missing = tuple(agent for agent in DEFAULT_AGENTS if agent.type not in named)
        msgspec.structs.force_setattr(self, "agents", (*self.agents, *missing))
        if wrong := list(self._contradictions()):
            raise Contradiction(wrong)

    def _contradictions(self) -> Iterator[tuple[Place, str]]:
        types = self.agent_types
        if twice := {name for name in types if types.count(name) > 1}:
            yield ("agents",), f"agents: agent type listed twice: {', '.join(sorted(twice))}"
        routing = self.routing
        targets: dict[Place, str] = {("routing", "intents", intent): to for intent, to in routing.intents.items()}
        targets["routing", "fallback"] = routing.fallback
        for place, target in targets.items():
            if target not in types:
                yield place, self._nowhere(".".join(place), target)
        for number, agent in enumerate(self.agents):
            for key, text in self._about(agent):
                yield ("agents", str(number), *key), f"agents.{agent.type}.{'.'.join(key)}{text}"
        for name, model in self.models.items():
            if model.provider == "azure" and not model.base_url:
                yield ("models", name), f"models.{name}.base_url: provider azure needs the address of your resource"
        quotas = {"default": self.quotas.default, **self.quotas.tenants}
        if not self.quotas.prices and (spenders := [name for name, quota in quotas.items() if quota.money_per_day]):
            yield ("quotas",), f"quotas: money_per_day of {', '.join(spenders)} needs quotas.prices to count by"
        yield from self._about_pools()

    def _about_pools(self) -> Iterator[tuple[Place, str]]:
        """Yield what is wrong with ``scaling``."""
        known = self._bases
        if unknown := set(self.scaling.pools) - set(known):
            pools = ", ".join(sorted(unknown))
            yield ("scaling", "pools"), f"scaling.pools names no pool: {pools}; pools: {', '.join(known)}"
        if self.scaling.default.shards:
            yield ("scaling", "default", "shards"), "scaling.default.shards: name the pool, under scaling.pools"
        for name, pool in self.scaling.pools.items():
            place = ("scaling", "pools", name, "shards")
            if pool.shards and name in {keys.INTENT_POOL, keys.CALLBACK_POOL}:
                yield place, f"{'.'.join(place)}: only agent pools have shards, chosen by the intent pool"
            for shard in pool.shards:
                if f"{shard}-".startswith("high-"):
                    yield (*place, shard), f"{'.'.join((*place, shard))}: `high` names the queue of high priority"

    def _about(self, agent: AgentSettings) -> Iterator[tuple[Place, str]]:
        """Yield what is wrong with ``agent``: the key below it, and what to say behind the key's name."""
        if agent.fallback and agent.fallback not in self.agent_types:
            yield ("fallback",), self._nowhere("", agent.fallback)
        elif cycle := self._fallback_cycle(agent):
            yield ("fallback",), f" leads back to itself: {' -> '.join(cycle)}"
        team = agent.team
        if team is None:
            return
        if agent.planning:
            yield (
                ("team",),
                (
                    ": an agent type that plans writes its answers with its own model and never asks a team;"
                    " leave out `team`, or set plan: {max_steps: 0}"
                ),
            )
        names = [member.name for member in team.members]
        if len(set(names)) < len(names):
            yield ("team", "members"), f": two members have the same name ({', '.join(names)})"
        if team.shape == "selector" and not team.until:
            yield ("team",), ": shape selector needs `until`, the word that ends the talk"
        if agent.tools:
            yield ("tools",), ": name the tools at the team's members"

    def _nowhere(self, key: str, target: str) -> str:
        return f"{key} names {target!r}, which is not an agent type ({', '.join(sorted(set(self.agent_types)))})"

    def _fallback_cycle(self, agent: AgentSettings) -> list[str]:
        """Return the types from ``agent`` back to itself; empty where its fallbacks end."""
        fallbacks = {other.type: other.fallback for other in self.agents}
        passed = [agent.type]
        while (following := fallbacks.get(passed[-1])) and following not in passed[1:]:
            passed.append(following)
            if following == agent.type:
                return passed
        return []

    @property
    def agent_types(self) -> tuple[str, ...]:
        """Return the configured agent types."""
        return tuple(agent.type for agent in self.agents)

    @property
    def pools(self) -> tuple[str, ...]:
        """Return every pool: intent, one for each agent type or in its place its shards, and the callbacks' own."""
        return tuple(name for base in self._bases for name in self.sharded.get(base, (base,)))

    @property
    def sharded(self) -> dict[str, tuple[str, ...]]:
        """Return the pools that have shards, each with the names of these."""
        pools = self.scaling.pools.items()
        return {
            name: tuple(keys.shard_pool(name, shard) for shard in pool.shards) for name, pool in pools if pool.shards
        }

    @property
    def _bases(self) -> tuple[str, ...]:
        return (keys.INTENT_POOL, *map(keys.agent_pool, self.agent_types), keys.CALLBACK_POOL)

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
        """Return how the pool ``name`` scales.

        A pool that has shards is one all the same: what waited in its queues before it had them is still to be done.
        """
        if name not in self.pools and name not in self.sharded:
            raise InvalidInput(f"no pool {name!r}; there are {', '.join(self.pools)}")
        base, shard = keys.base_pool(name), keys.shard_of(name)
        pool = self.scaling.pools.get(base, self.scaling.default)
        own = next((agent.concurrency for agent in self.agents if keys.agent_pool(agent.type) == base), None)
        if own:
            pool = pool.changed(concurrency=own)
        return pool.shard(shard) if shard else pool

    def grace(self, *pools: str) -> float:
        """Return how many seconds a worker of ``pools`` that is told to stop has for what runs.

        Where nothing else is set, what runs may take as long as its agent may, and is never handed back.
        """
        if self.scaling.grace_seconds is not None:
            return self.scaling.grace_seconds
        bases = set(map(keys.base_pool, pools))
        deadlines = [agent.deadline_seconds for agent in self.agents if keys.agent_pool(agent.type) in bases]
        if keys.CALLBACK_POOL in bases:
            deadlines.append(self.callbacks.timeout_seconds)
        return max([LEAST_GRACE_SECONDS, *(seconds + CANCEL_MARGIN_SECONDS for seconds in deadlines)])

"""Pools and queues, and the times of the register."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from tasks.settings.base import Count, Positive, Section

ShardName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\Z")]
"""A zone or a cluster."""

CANCEL_MARGIN_SECONDS: Final = 3.0
"""Seconds at the end of the grace period in which running attempts are cancelled and handed back."""
LEAST_GRACE_SECONDS: Final = 30.0
"""What a worker has for what runs, however short the deadline of its agents is."""


class ShardSettings(Section, frozen=True, kw_only=True):
    """What one shard has otherwise than its pool. With ``drain`` it does what it has and gets nothing new."""

    max_workers: Count | None = None
    concurrency: Count | None = None
    requests_per_worker: Count | None = None
    bandwidth_mbit: Positive | None = None
    drain: bool = False


class PoolSettings(Section, frozen=True, kw_only=True):
    """How a pool scales: worker processes, and requests at a time in each.

    ``shards`` by name take its place, each a pool of its own. ``bandwidth_mbit`` is what a worker's machine can
    transfer, in megabits a second: how much of it is free counts when a shard is chosen. ``kind`` is for Kubernetes:
    workers of a ``job`` are never taken away, they end by themselves when nothing comes any more.
    """

    max_workers: Count = 1
    concurrency: Count = 16
    requests_per_worker: Count = 16
    bandwidth_mbit: Positive = 1000
    kind: Literal["deployment", "job"] = "deployment"
    shards: dict[ShardName, ShardSettings] = msgspec.field(default_factory=dict)

    def shard(self, name: str) -> PoolSettings:
        """Return how the shard ``name`` scales."""
        own = msgspec.structs.asdict(self.shards[name])
        changes = {key: value for key, value in own.items() if key != "drain" and value is not None}
        return self.changed(shards={}, **changes)


class ScalingSettings(Section, frozen=True, kw_only=True):
    """``pools`` overrides the defaults by pool name (``intent``, ``agents.<type>``, ``callbacks``).

    ``grace_seconds``: what a worker that is told to stop has for what runs, instead of what :meth:`Settings.grace`
    derives from the deadline of its agents. ``cold_start_seconds``: so long a shard may take from nothing to the first
    sign of life of a worker. With ``warm_parent`` the local autoscaler forks workers from a process that has imported
    what they need.
    """

    polling_seconds: Positive = 1
    cooldown_seconds: Positive = 60
    grace_seconds: Positive | None = None
    cold_start_seconds: Positive = 30
    warm_parent: bool = False
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
    """Times of the register in seconds. A lease lasts three heartbeats and counts as lapsed two later.

    ``alive_file`` is touched at each heartbeat, for a liveness probe.
    """

    heartbeat_seconds: Positive = 5
    sweep_seconds: Positive = 2
    lost_seconds: Positive = 10
    unpublished_seconds: Positive = 10
    remember_seconds: Count = 24 * 3600
    alive_file: Path | None = None

    @property
    def lease_seconds(self) -> float:
        """Return how long a lease lasts without a heartbeat."""
        return 3 * self.heartbeat_seconds

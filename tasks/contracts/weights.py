"""What workers say of their load, and what the coordinator makes of it: the weights of the shards."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from tasks.contracts.base import Contract, always

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Load(Contract, frozen=True, kw_only=True):
    """What is free where a worker runs, each from 0 (none) to 1 (all)."""

    cpu_free: Fraction
    memory_free: Fraction
    network_free: Fraction


class ShardState(StrEnum):
    """Why a shard has its weight. One that is ``silent`` or ``draining`` gets nothing."""

    SERVING = "serving"
    """Its workers report."""
    IDLE = "idle"
    """It has no worker and nothing waits: it counts as fully free, else it would never wake."""
    WAKING = "waking"
    """It has no worker, something waits, and it may still be starting one."""
    SILENT = "silent"
    """Something waits, and no worker has reported for longer than a start takes."""
    DRAINING = "draining"
    """The settings say that it shall get nothing."""


class ShardWeight(Contract, frozen=True, kw_only=True):
    """One shard. ``load`` is the mean of its ``workers``; ``reported_at``: when one was last heard, 0 for never."""

    weight: Fraction
    state: ShardState
    workers: int = always(0)
    load: Load | None = None
    reported_at: float = always(0.0)

    @property
    def is_healthy(self) -> bool:
        """Tell whether it may get work."""
        return self.state not in {ShardState.SILENT, ShardState.DRAINING}


class Weights(Contract, frozen=True, kw_only=True):
    """All shards by the names of their pools, as ``leader`` saw them ``at`` (Unix seconds)."""

    at: float
    leader: str
    token: int
    shards: dict[str, ShardWeight]

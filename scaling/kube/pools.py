"""What the manifests say of each pool, derived from the settings: no number is written twice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, Literal

from scaling.rules import Change, Direction, Fallback, Rules
from tasks import keys
from tasks.settings import Settings

Manifest = dict[str, Any]

DRAIN_MARGIN_SECONDS: Final = 10
"""From the end of a worker's own grace period to the kill: what runs then has been handed back."""
_UP: Final = Direction(0, (Change("Percent", 900, 15), Change("Pods", 10, 15)))
_DOWN: Final = Direction(120, (Change("Percent", 50, 60),))
_FALLBACK: Final = Fallback(failures=3, replicas=1, behaviour="currentReplicasIfHigher")


@dataclass(frozen=True)
class PoolPlan:
    """One pool. ``name`` is that of its objects; ``drain_seconds`` is what a worker has for what runs."""

    pool: str
    name: str
    image: str
    kind: Literal["deployment", "job"]
    drain_seconds: int
    rules: Rules

    @property
    def termination_seconds(self) -> int:
        """Return how long Kubernetes waits for a worker that it told to stop."""
        return self.drain_seconds + DRAIN_MARGIN_SECONDS


def object_name(pool: str) -> str:
    """Return the name of a pool's objects: what Kubernetes takes for a name."""
    return re.sub(r"[^a-z0-9]+", "-", pool).strip("-")


def plans(settings: Settings) -> list[PoolPlan]:
    """Return every pool of ``settings``, the intent pool first."""
    return [_plan(settings, pool) for pool in settings.pools]


def _plan(settings: Settings, pool: str) -> PoolPlan:
    scaling, own = settings.scaling, settings.pool(pool)
    polling = max(ceil(scaling.polling_seconds), 1)
    return PoolPlan(
        pool=pool,
        name=object_name(pool),
        image="intent-cpu" if pool == keys.INTENT_POOL else "agent",
        kind=own.kind,
        drain_seconds=ceil(settings.grace(pool)),
        rules=Rules(
            maximum=own.max_workers,
            target=own.requests_per_worker,
            polling=polling,
            cooldown=max(ceil(scaling.cooldown_seconds), 2 * polling),  # never asleep by a single look
            up=_UP,
            down=_DOWN,
            fallback=_FALLBACK,
        ),
    )

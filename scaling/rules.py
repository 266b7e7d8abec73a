"""What KEDA and the HorizontalPodAutoscaler do with a metric, as pure functions of time.

KEDA looks every ``polling`` seconds. It wakes a pool from zero where the metric is strictly above ``activation``, and
puts it back to zero ``cooldown`` seconds after it was last so. Between one and the maximum the autoscaler decides,
every ``sync`` seconds: the metric over the target, rounded up, left alone within the tolerance, held by stabilisation
windows, bounded by policies. Sources: KEDA's "Scaling Deployments" and Kubernetes' "Horizontal Pod Autoscaling".
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Final, Literal

TOLERANCE: Final = 0.1
"""Kubernetes' own default: a ratio this near to 1 changes nothing."""
SYNC_SECONDS: Final = 15.0
"""How often the autoscaler looks, by default."""


@dataclass(frozen=True)
class Change:
    """At most ``value`` pods, or percent of those that there are, within ``period`` seconds."""

    kind: Literal["Pods", "Percent"]
    value: int
    period: float

    def most(self, replicas: int) -> float:
        """Return how many pods it allows to add to, or take from, ``replicas``."""
        return self.value if self.kind == "Pods" else replicas * self.value / 100


@dataclass(frozen=True)
class Direction:
    """How fast the autoscaler goes one way: the most generous of ``changes``, after ``window`` seconds of agreement."""

    window: float
    changes: tuple[Change, ...]


UP: Final = Direction(0, (Change("Percent", 100, 15), Change("Pods", 4, 15)))
DOWN: Final = Direction(300, (Change("Percent", 100, 15),))


@dataclass(frozen=True)
class Fallback:
    """After ``failures`` looks in a row without an answer the pool has ``replicas``."""

    failures: int
    replicas: int


@dataclass(frozen=True)
class Rules:
    """One ScaledObject. ``target`` is of the metric for each replica; times are seconds."""

    maximum: int
    target: float
    minimum: int = 0
    activation: float = 0.0
    polling: float = 30.0
    cooldown: float = 300.0
    sync: float = SYNC_SECONDS
    up: Direction = UP
    down: Direction = DOWN
    fallback: Fallback | None = None


@dataclass
class Scaler:
    """Follows the rules over time. It acts at its own intervals, whenever it is asked."""

    rules: Rules
    _active_at: float | None = None
    _polled_at: float | None = None
    _synced_at: float | None = None
    _failures: int = 0
    _asked: deque[tuple[float, int]] = field(default_factory=deque)
    _steps: deque[tuple[float, int]] = field(default_factory=deque)

    def decide(self, now: float, metric: float | None, replicas: int) -> int:
        """Return the replicas to have at ``now``. ``metric`` is that of the whole pool; None: nobody answered."""
        decided = replicas
        if self._polled_at is None or now - self._polled_at >= self.rules.polling:
            self._polled_at = now
            decided = self._polled(now, metric, replicas)
        if decided and (self._synced_at is None or now - self._synced_at >= self.rules.sync):
            self._synced_at = now
            decided = self._synced(now, metric, decided)
        if decided == 0:
            self._synced_at = None
            self._asked.clear()
        if decided != replicas:
            self._steps.append((now, decided - replicas))
        return decided

    def _polled(self, now: float, metric: float | None, replicas: int) -> int:
        """Wake the pool, or put it to sleep."""
        rules = self.rules
        self._failures = 0 if metric is not None else self._failures + 1
        if metric is None:
            if rules.fallback and self._failures >= rules.fallback.failures:
                return rules.fallback.replicas
            return replicas
        if metric > rules.activation:
            self._active_at = now
            return max(replicas, rules.minimum, 1)
        if rules.minimum:
            return max(replicas, rules.minimum)
        if replicas and self._active_at is None:
            self._active_at = now
        is_over = self._active_at is not None and now - self._active_at >= rules.cooldown
        return 0 if is_over else replicas

    def _synced(self, now: float, metric: float | None, replicas: int) -> int:
        """Return what the autoscaler wants of a pool that is awake."""
        rules = self.rules
        if metric is None:
            fallback = rules.fallback
            if fallback is None or self._failures < fallback.failures:
                return replicas
            metric = rules.target * fallback.replicas  # which is how KEDA tells it
        asked = replicas if abs(metric / (rules.target * replicas) - 1) <= TOLERANCE else ceil(metric / rules.target)
        asked = min(max(asked, rules.minimum, 1), rules.maximum)
        asked = self._stabilised(now, asked, replicas)
        return min(max(self._bounded(now, asked, replicas), 1), rules.maximum)

    def _stabilised(self, now: float, asked: int, replicas: int) -> int:
        """Return the most careful of what was asked in the window of each direction."""
        self._asked.append((now, asked))
        longest = max(self.rules.up.window, self.rules.down.window)
        while self._asked[0][0] < now - longest:
            self._asked.popleft()
        highest = max(count for time, count in self._asked if time >= now - self.rules.down.window)
        lowest = min(count for time, count in self._asked if time >= now - self.rules.up.window)
        if replicas < lowest:
            return lowest
        return min(replicas, highest)

    def _bounded(self, now: float, asked: int, replicas: int) -> int:
        """Return ``asked``, or as far towards it as the policies allow."""
        if asked > replicas:
            limits = [self._base(now, change, replicas) + change.most(self._base(now, change, replicas))
                      for change in self.rules.up.changes]  # fmt: skip
            return min(asked, ceil(max(limits))) if limits else replicas
        if asked < replicas:
            floors = [self._base(now, change, replicas) - change.most(self._base(now, change, replicas))
                      for change in self.rules.down.changes]  # fmt: skip
            return max(asked, floor(min(floors))) if floors else replicas
        return asked

    def _base(self, now: float, change: Change, replicas: int) -> int:
        """Return how many replicas there were ``change.period`` ago."""
        recent = sum(step for time, step in self._steps if time > now - change.period)
        while self._steps and self._steps[0][0] < now - 3600:
            self._steps.popleft()
        return replicas - recent

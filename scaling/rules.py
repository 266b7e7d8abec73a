"""What KEDA and the HorizontalPodAutoscaler do with a metric, as pure functions of time.

KEDA looks every ``polling`` seconds. It wakes a pool from zero where the metric is strictly above ``activation``, and
puts it back to zero more than ``cooldown`` seconds after it was last so. Between one and the maximum the autoscaler
decides, every ``sync`` seconds: the metric over the target, rounded up, left alone within the tolerance, held by
stabilisation windows, bounded by policies. Sources: KEDA's "Scaling Deployments" and "ScaledObject specification",
Kubernetes' "Horizontal Pod Autoscaling" and its controller.
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
_REMEMBERED_SECONDS: Final = 3600.0
"""The longest window and period that Kubernetes takes."""

Behaviour = Literal["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]


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
    """How fast the autoscaler goes one way, after ``window`` seconds of agreement.

    ``select`` is ``Max`` for the most generous of ``changes``, ``Min`` for the least, ``Disabled`` for not at all.
    """

    window: float
    changes: tuple[Change, ...]
    select: Literal["Max", "Min", "Disabled"] = "Max"


UP: Final = Direction(0, (Change("Percent", 100, 15), Change("Pods", 4, 15)))
DOWN: Final = Direction(300, (Change("Percent", 100, 15),))


@dataclass(frozen=True)
class Fallback:
    """After more than ``failures`` looks in a row without an answer the pool has ``replicas``, by ``behaviour``."""

    failures: int
    replicas: int
    behaviour: Behaviour = "static"

    def of(self, current: int) -> int:
        """Return what a pool of ``current`` replicas has while nobody answers."""
        if self.behaviour == "currentReplicas":
            return current
        if self.behaviour == "currentReplicasIfHigher":
            return max(current, self.replicas)
        return min(current, self.replicas) if self.behaviour == "currentReplicasIfLower" else self.replicas


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
    """Follows the rules over time. It acts at its own intervals, whenever it is asked.

    Where a pool is awake when it begins, that counts as activity: KEDA keeps the time of the last one in the object.
    The autoscaler looks as soon as a pool wakes; in a cluster that may be up to ``sync`` seconds later.
    """

    rules: Rules
    _active_at: float | None = None
    _polled_at: float | None = None
    _synced_at: float | None = None
    _failures: int = 0
    _asked: deque[tuple[float, int]] = field(default_factory=deque)
    _steps: deque[tuple[float, int]] = field(default_factory=deque)

    def decide(self, now: float, metric: float | None, replicas: int, *, pushed: bool = False) -> int:
        """Return the replicas to have at ``now``. ``metric`` is that of the whole pool; None: nobody answered.

        ``pushed``: somebody rang, and a pool that sleeps need not wait for its next look; see KEDA's push scalers.
        """
        decided = replicas
        is_due = self._polled_at is None or now - self._polled_at >= self.rules.polling
        if is_due or (pushed and replicas == 0):
            self._polled_at = now
            decided = self._polled(now, metric, replicas)
        if decided and (self._synced_at is None or now - self._synced_at >= self.rules.sync):
            self._synced_at = now
            decided = self._synced(now, metric, decided)
        if decided == 0:
            self._synced_at = None
        return decided

    @property
    def _fallback(self) -> Fallback | None:
        """Return the fallback if it is time for it."""
        fallback = self.rules.fallback
        return fallback if fallback and self._failures > fallback.failures else None

    def _polled(self, now: float, metric: float | None, replicas: int) -> int:
        """Wake the pool, or put it to sleep."""
        rules = self.rules
        self._failures = 0 if metric is not None else self._failures + 1
        if metric is None:
            return min(self._fallback.of(replicas), rules.maximum) if self._fallback else replicas
        if metric > rules.activation:
            self._active_at = now
            return max(replicas, rules.minimum, 1)
        if rules.minimum:
            return max(replicas, rules.minimum)
        if replicas and self._active_at is None:
            self._active_at = now
        is_over = self._active_at is not None and now - self._active_at > rules.cooldown
        return 0 if is_over else replicas

    def _synced(self, now: float, metric: float | None, replicas: int) -> int:
        """Return what the autoscaler wants of a pool that is awake."""
        rules = self.rules
        least = max(rules.minimum, 1)
        if metric is None:
            if self._fallback is None:
                return replicas
            metric = rules.target * self._fallback.of(replicas)  # which is how KEDA tells it
        if not least <= replicas <= rules.maximum:
            # Outside of its bounds a pool is put back at once, past windows and policies.
            return min(max(replicas, least), rules.maximum)
        asked = replicas if abs(metric / (rules.target * replicas) - 1) <= TOLERANCE else ceil(metric / rules.target)
        asked = self._stabilised(now, min(max(asked, least), rules.maximum), replicas)
        decided = min(max(self._bounded(now, asked, replicas), least), rules.maximum)
        if decided != replicas:
            self._steps.append((now, decided - replicas))
        return decided

    def _stabilised(self, now: float, asked: int, replicas: int) -> int:
        """Return the most careful of what was asked in the window of each direction."""
        if not self._asked:
            self._asked.append((now, replicas))  # what was there when it began counts as asked for
        while self._asked and self._asked[0][0] < now - _REMEMBERED_SECONDS:
            self._asked.popleft()
        highest = max([asked, *(count for time, count in self._asked if time > now - self.rules.down.window)])
        lowest = min([asked, *(count for time, count in self._asked if time > now - self.rules.up.window)])
        self._asked.append((now, asked))
        return min(max(replicas, lowest), highest)

    def _bounded(self, now: float, asked: int, replicas: int) -> int:
        """Return ``asked``, or as far towards it as the policies allow."""
        direction = self.rules.up if asked > replicas else self.rules.down
        if asked == replicas or direction.select == "Disabled" or not direction.changes:
            return replicas
        sign = 1 if asked > replicas else -1
        bases = [self._base(now, change, replicas) for change in direction.changes]
        ends = [sign * base + change.most(base) for base, change in zip(bases, direction.changes, strict=True)]
        end = max(ends) if direction.select == "Max" else min(ends)
        if sign > 0:
            return min(asked, max(ceil(end), replicas))
        return max(asked, min(floor(-end), replicas))

    def _base(self, now: float, change: Change, replicas: int) -> int:
        """Return how many replicas there were ``change.period`` ago."""
        while self._steps and self._steps[0][0] < now - _REMEMBERED_SECONDS:
            self._steps.popleft()
        return replicas - sum(step for time, step in self._steps if time > now - change.period)

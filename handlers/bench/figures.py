"""The arithmetic of ``sluice bench``: from readings of clocks and counters to the figures that are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

RATES: Final = (500, 800)
"""Requests per second for which the cores are worked out."""
_MIDDLE: Final = (0.1, 0.9)
_MOST_MEASURED: Final = 3000


@dataclass(frozen=True)
class Reading:
    """Counters at one moment: ``seconds`` of a clock, CPU seconds by process, busy CPU seconds of the machine."""

    seconds: float
    cpu: Mapping[str, float]
    machine: float


@dataclass(frozen=True)
class Spent:
    """What lies between two readings: ``seconds`` of time, CPU seconds by process, and those of everybody else."""

    seconds: float
    cpu: Mapping[str, float]
    others: float

    @classmethod
    def between(cls, before: Reading, after: Reading) -> Spent:
        """Return the difference of two readings of the same processes."""
        cpu = {name: max(used - before.cpu[name], 0.0) for name, used in after.cpu.items()}
        others = max(after.machine - before.machine - sum(cpu.values()), 0.0)
        return cls(after.seconds - before.seconds, cpu, others)

    def __add__(self, other: Spent) -> Spent:
        """Return both together."""
        cpu = {name: self.cpu.get(name, 0) + used for name, used in other.cpu.items()}
        return Spent(self.seconds + other.seconds, cpu, self.others + other.others)

    @property
    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all counted processes."""
        return sum(self.cpu.values())


@dataclass(frozen=True)
class Burst:
    """Requests that were submitted at once, and what they took. ``observer`` are CPU seconds of the looking itself."""

    requests: int
    statuses: Mapping[str, int]
    spent: Spent
    observer: float

    @property
    def rate(self) -> float:
        """Return requests per second, from the first submitted to the last done."""
        return self.requests / self.spent.seconds

    @property
    def cpu_per_request(self) -> float:
        """Return the CPU seconds of one request, all counted processes together."""
        return self.spent.cpu_seconds / self.requests


@dataclass(frozen=True)
class OpenLoop:
    """Requests that came by the clock, whatever became of the earlier ones. Latencies are in seconds, sorted."""

    rate: float
    seconds: float
    statuses: Mapping[str, int]
    latencies: Sequence[float]
    spent: Spent

    @property
    def kept_up(self) -> bool:
        """Tell whether the pipeline was done soon after the last arrival, and not behind ever more requests."""
        return self.spent.seconds <= self.seconds * 1.2 + 1


@dataclass(frozen=True)
class Depth:
    """What a queue of ``waiting`` requests was served with, in ``rounds`` drains one after the other.

    ``spent`` is that of all drains; ``middle_rate`` is requests per second over their middles.
    """

    waiting: int
    rounds: int
    spent: Spent
    middle_rate: float

    @property
    def rate(self) -> float:
        """Return requests per second over the whole drains: from zero, and down to the last straggler."""
        return self.rounds * self.waiting / self.spent.seconds

    @property
    def cpu_per_request(self) -> float:
        """Return the CPU seconds of one request that waits already: submitting it is not in it."""
        return self.spent.cpu_seconds / (self.rounds * self.waiting)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below or at which ``share`` (0..1) of the sorted ``values`` lie: the nearest rank.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    return values[max(math.ceil(share * len(values)), 1) - 1]


def cores_at(rate: float, cpu_per_request: float) -> float:
    """Return how many cores ``rate`` requests per second keep busy."""
    return rate * cpu_per_request


def middle(samples: Sequence[tuple[float, int]], total: int) -> tuple[float, int]:
    """Return seconds and results of the middle of a drain: from a tenth of ``total`` on, at most 3,000 results.

    ``samples`` are (seconds, results so far), in order. Where no two of them lie in the middle, it is the whole drain.
    """
    inner = [(seconds, done) for seconds, done in samples if _MIDDLE[0] * total <= done <= _MIDDLE[1] * total]
    inner = [(seconds, done) for seconds, done in inner if done <= inner[0][1] + _MOST_MEASURED]
    (begin, first), (end, last) = (inner or samples)[0], (inner or samples)[-1]
    if last == first:
        (begin, first), (end, last) = samples[0], samples[-1]
    return end - begin, last - first


def spread(values: Sequence[float]) -> float:
    """Return how far the smallest of ``values`` lies below the largest, as a share of the largest (0..1)."""
    return 1 - min(values) / max(values)

"""Replays arrivals against scaling rules: replicas, waiting, latency and cost, without a cluster.

Time goes in ticks. Within one tick all is a fluid: requests start in order of arrival as far as there are free slots,
and end by the distribution of service times. Latencies come from the cumulative curves of arrivals and starts, so that
a trace of a million requests a minute costs no more than one of ten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scaling.rules import Rules, Scaler

Array = NDArray[np.float64]

_LONGEST: Final = 3.72
"""Standard deviations of the logarithm: the tail beyond 0.9999 of the service times is cut."""
_SHARES: Final = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Service:
    """How long one request takes: a log-normal with this mean in seconds and coefficient of variation."""

    mean: float
    variation: float = 0.5

    def per_tick(self, tick: float) -> Array:
        """Return the share of requests that end 1, 2, … ticks after their start; it sums to 1."""
        sigma = np.sqrt(np.log1p(self.variation**2))
        mu = np.log(self.mean) - sigma**2 / 2
        longest = ceil(float(np.exp(mu + sigma * _LONGEST)) / tick)
        edges = np.arange(1, longest + 1) * tick
        below = _normal((np.log(edges) - mu) / sigma) if sigma > 1e-6 else (edges >= self.mean).astype(float)
        below[-1] = 1.0
        return np.diff(below, prepend=0.0)


@dataclass(frozen=True)
class Pool:
    """What a worker of the pool can do: requests at a time, and seconds from being wanted to being ready."""

    concurrency: int
    service: Service
    start_seconds: float


@dataclass(frozen=True)
class Costs:
    """Money for one worker for an hour."""

    worker_hour: float = 0.04


@dataclass(frozen=True)
class Outcome:
    """What a replay showed. Arrays have one value for each tick; latencies are seconds from arrival to end.

    ``waits`` are the seconds until what came in a tick was begun, with ``inf`` for what never was.
    """

    tick: float
    replicas: Array
    ready: Array
    waiting: Array
    running: Array
    waits: Array
    latency: dict[float, float]
    requests: float
    worker_seconds: float
    unfinished: float

    def cost_per_million(self, costs: Costs) -> float:
        """Return money for a million requests like these."""
        hours = self.worker_seconds / 3600
        return hours * costs.worker_hour / self.requests * 1e6 if self.requests else 0.0


Decide = Callable[[float, float, float, int], int]
"""From the time, what waits, what runs and the replicas to the replicas to have."""


def by_rules(scaler: Scaler, *, in_flight: bool = True) -> Decide:
    """Return the decisions of ``scaler`` on waiting plus running work, or, as many do, on what waits alone."""
    return lambda now, waiting, running, replicas: scaler.decide(
        now, ceil(waiting - 1e-9) + (ceil(running - 1e-9) if in_flight else 0), replicas
    )


def always(replicas: int) -> Decide:
    """Return the decisions of whoever never scales."""
    return lambda *_: replicas


def compare(
    arrivals: Array,
    rules: Rules,
    pool: Pool,
    *,
    tick: float = 0.25,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Outcome]:
    """Return what ``rules`` make of ``arrivals``, beside what queue length alone does, and who never scales.

    ``advance`` is told how many of the three are done.
    """
    ways: dict[str, tuple[Decide, int]] = {
        "waiting + running": (by_rules(Scaler(rules)), 0),
        "queue length alone": (by_rules(Scaler(rules), in_flight=False), 0),
        "always on": (always(rules.maximum), rules.maximum),
    }
    found: dict[str, Outcome] = {}
    for name, (decide, replicas) in ways.items():
        advance(len(found), len(ways))
        found[name] = replay(arrivals, decide, pool, tick=tick, replicas=replicas)
    return found


def replay(arrivals: Array, decide: Decide, pool: Pool, *, tick: float = 0.25, replicas: int = 0) -> Outcome:
    """Replay ``arrivals``, requests in each tick of ``tick`` seconds, then let the pool finish and fall asleep.

    A worker that is taken away ends what it runs, and costs until then. Where work is never finished, because the pool
    does not wake for it, the replay ends an hour after the last arrival, and says how much is left.
    """
    ends = pool.service.per_tick(tick)
    delay = max(ceil(pool.start_seconds / tick), 0)
    most = len(arrivals) + ceil(3600 / tick)
    ending = np.zeros(most + len(ends) + 1)
    started = np.zeros(most)
    history: dict[str, list[float]] = {"replicas": [], "ready": [], "waiting": [], "running": []}
    waiting = running = 0.0
    coming: list[tuple[int, int]] = []
    ready = at_rest = replicas
    for now in range(most):
        running -= ending[now]
        waiting += arrivals[now] if now < len(arrivals) else 0.0
        wanted = decide(now * tick, waiting, running, replicas)
        if wanted > replicas:
            coming.append((now + delay, wanted - replicas))
        elif wanted < replicas:
            ready, coming = _taken(replicas - wanted, ready, coming)
        replicas = wanted
        ready += sum(count for at, count in coming if at <= now)
        coming = [(at, count) for at, count in coming if at > now]
        begun = min(waiting, max(ready * pool.concurrency - running, 0.0))
        waiting -= begun
        running += begun
        started[now] = begun
        ending[now + 1 : now + 1 + len(ends)] += begun * ends
        history["replicas"].append(replicas)
        # What a worker that was taken away still runs is paid for.
        history["ready"].append(max(replicas, ceil(running / pool.concurrency - 1e-6)))
        history["waiting"].append(waiting)
        history["running"].append(running)
        if now >= len(arrivals) and waiting + running < 1e-6 and replicas <= at_rest:
            break
    kept = {name: np.array(values) for name, values in history.items()}
    return Outcome(
        tick=tick,
        **kept,
        waits=_waits(arrivals, started[: len(kept["waiting"])], tick),
        latency=_latency(arrivals, started, ends, tick),
        requests=float(arrivals.sum()),
        worker_seconds=float(kept["ready"].sum() * tick),
        unfinished=float(waiting),
    )


def _taken(count: int, ready: int, coming: list[tuple[int, int]]) -> tuple[int, list[tuple[int, int]]]:
    """Take ``count`` workers away: those first that are not ready yet."""
    left: list[tuple[int, int]] = []
    for at, number in reversed(coming):
        taken = min(number, count)
        count -= taken
        if number > taken:
            left.append((at, number - taken))
    return ready - count, left[::-1]


def _waits(arrivals: Array, started: Array, tick: float) -> Array:
    """Return the seconds that what comes in each tick waits."""
    came = np.zeros(len(started))
    came[: len(arrivals)] = arrivals
    at = np.searchsorted(np.cumsum(started), np.cumsum(came) - 1e-6)
    waits: Array = np.maximum(at - np.arange(len(started)), 0) * tick
    return np.where(at < len(started), waits, np.inf)


def _latency(arrivals: Array, started: Array, ends: Array, tick: float) -> dict[float, float]:
    """Return latencies by share: the wait of each tick's arrivals, by the two curves, plus the time of service."""
    came, begun = np.cumsum(arrivals), np.cumsum(started)
    done = came[-1] if begun[-1] >= came[-1] - 1e-6 else begun[-1]
    if done <= 0:
        return dict.fromkeys(_SHARES, 0.0)
    # Enough places in the line to see a share of 0.99, each a request that waits from one curve to the other.
    places = (np.arange(20_000) + 0.5) / 20_000 * done
    waits = np.maximum(np.searchsorted(begun, places) - np.searchsorted(came, places), 0)
    counts = np.bincount(waits)
    whole = np.convolve(counts / counts.sum(), np.concatenate([[0.0], ends]))
    below = np.cumsum(whole)
    return {share: float(np.searchsorted(below, share)) * tick for share in _SHARES}


def _normal(values: Any) -> Array:
    """Return the distribution function of the normal distribution (Abramowitz and Stegun 7.1.26, error below 2e-7)."""
    x = np.minimum(np.abs(values) / np.sqrt(2), 30.0)  # beyond, its square is more than a float holds
    t = 1 / (1 + 0.3275911 * x)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = 1 - series * np.exp(-x * x)
    below: Array = np.where(values >= 0, (1 + erf) / 2, (1 - erf) / 2)
    return below

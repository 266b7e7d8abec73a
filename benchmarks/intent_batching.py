"""Ways to batch the classifier's requests, simulated: latency and batch size at every load.

    python -m benchmarks.intent_batching [--costs cpu,gpu] [--measure] [--arrivals poisson,bursty,trains] [--json FILE]

One server runs one batch at a time, for ``a`` seconds a padded token and ``b`` a run. Load is arrivals times the run
time of one request alone: 100% is what serving them one by one cannot carry. The policy is the one of the product; it
learns ``a`` and ``b``, the others need none. Arrivals are the same for all. ``greedy`` is the policy without holding.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from rich.console import Console
from rich.progress import track

from benchmarks.intent_model import fitted
from intent.batch_policy import WINDOW, Limits, Plan, Policy

Item = tuple[float, int]
"""When it arrives, in seconds, and its tokens."""

LOADS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.2)
NOISE: Final = 0.1
"""Standard deviation of a run's time, as a share of it."""


@dataclass(frozen=True)
class Cost:
    """Seconds for a padded token, and for a run."""

    per_token: float
    fixed: float

    def seconds(self, tokens: float) -> float:
        return self.per_token * tokens + self.fixed


COSTS: Final = {"cpu": Cost(0.13e-3, 1.2e-3), "gpu": Cost(2e-6, 4e-3)}


@dataclass(frozen=True)
class Row:
    """What one way of batching did with one sequence of arrivals. Latencies are milliseconds."""

    cost: str
    arrivals: str
    load: float
    way: str
    mean: float
    p50: float
    p99: float
    mean_batch: float
    shed: float


# Arrivals -----------------------------------------------------------------------------------------


def sizes(rng: random.Random) -> Iterator[int]:
    """Yield the tokens of requests: 12 in the middle, 4 to 128."""
    while True:
        yield min(max(round(rng.lognormvariate(math.log(12), 0.5)), 4), 128)


def poisson(rate: float, rng: random.Random) -> Iterator[float]:
    """Yield the gaps of independent arrivals."""
    while True:
        yield rng.expovariate(rate)


def bursty(rate: float, rng: random.Random) -> Iterator[float]:
    """Yield gaps of two alternating states: five times the rate for 40 arrivals or so, then a fifth of it for 10."""
    while True:
        for factor, arrivals in ((5.0, 40), (0.2408, 10)):
            for _ in range(1 + int(rng.expovariate(1 / arrivals))):
                yield rng.expovariate(rate * factor)


def trains(rate: float, rng: random.Random) -> Iterator[float]:
    """Yield gaps of trains of 2 to 6 arrivals, half a millisecond apart, as when one task asks for others."""
    while True:
        length = rng.randint(2, 6)
        inside = [rng.expovariate(2000) for _ in range(length - 1)]
        yield rng.expovariate(1 / max(length / rate - sum(inside), 1e-6))
        yield from inside


ARRIVALS: Final[dict[str, Callable[[float, random.Random], Iterator[float]]]] = {
    "poisson": poisson,
    "bursty": bursty,
    "trains": trains,
}


def arrivals_of(kind: str, cost: Cost, load: float, count: int, seed: int) -> list[Item]:
    rng = random.Random(f"{kind} {seed}")
    mean = statistics.fmean(size for size, _ in zip(sizes(random.Random(seed)), range(2000), strict=False))
    rate = load / cost.seconds(mean)
    now, items = 0.0, []
    for gap, tokens, _ in zip(ARRIVALS[kind](rate, rng), sizes(rng), range(count), strict=False):
        now += gap
        items.append((now, tokens))
    # The mean gap of a short run differs from what was asked for: all kinds get the same load.
    scale = count / rate / now
    return [(at * scale, tokens) for at, tokens in items]


# Ways ---------------------------------------------------------------------------------------------


class Way(Protocol):
    """What the simulation asks; see :class:`intent.batch_policy.Policy`."""

    def arrived(self, tokens: int, now: float) -> None: ...
    def began(self, tokens: int, now: float) -> None: ...
    def ended(self, tokens: int, seconds: float | None) -> None: ...
    def plan(self, lengths: Sequence[int], oldest: float, now: float, *, hold: bool = True) -> Plan: ...
    def expected(self, tokens: int, waiting: Sequence[tuple[int, float]], now: float) -> float: ...


class Greedy(Policy):
    """The policy, without holding."""

    def plan(self, lengths: Sequence[int], oldest: float, now: float, *, hold: bool = True) -> Plan:
        return super().plan(lengths, oldest, now, hold=False)


class Window(Policy):
    """Holds every batch until its oldest item has waited for ``seconds``, or it is full; chooses as the policy does."""

    def __init__(self, limits: Limits, seconds: float) -> None:
        super().__init__(limits)
        self._seconds = seconds

    def plan(self, lengths: Sequence[int], oldest: float, now: float, *, hold: bool = True) -> Plan:
        places = super().plan(lengths, oldest, now, hold=False).places
        due = oldest + self._seconds
        return Plan(places, due if hold and len(places) < self.limits.max_batch and now < due else None)


def ways(limits: Limits) -> dict[str, Policy]:
    return {
        "adaptive": Policy(limits),
        "greedy": Greedy(limits),
        "window 5 ms": Window(limits, 0.005),
        "window 10 ms": Window(limits, 0.010),
        "no batching": Window(Limits(1, limits.max_tokens, limits.latency), 0.0),
    }


# The simulation -----------------------------------------------------------------------------------


@dataclass
class Served:
    """Latencies in seconds, sizes of batches, and how many were shed."""

    latencies: list[float]
    batches: list[int]
    shed: int = 0


def simulate(way: Way, limits: Limits, items: Sequence[Item], cost: Cost, seed: int, shed: bool) -> Served:
    """Run ``items`` through one server."""
    rng = random.Random(seed)
    done = Served([], [])
    waiting: list[Item] = []
    now, place = 0.0, 0

    def admit() -> None:
        nonlocal place
        at, tokens = items[place]
        place += 1
        way.arrived(tokens, at)
        if shed and way.expected(tokens, [(size, since) for since, size in waiting], at) > limits.latency:
            done.shed += 1
        else:
            waiting.append((at, tokens))

    while waiting or place < len(items):
        if not waiting:
            now = max(now, items[place][0])
            admit()
            continue
        window = waiting[: WINDOW * limits.max_batch]
        plan = way.plan([tokens for _, tokens in window], window[0][0], now)
        # Held: until the next arrival, which is decided on anew, or until it is time.
        if plan.until is not None and place < len(items) and items[place][0] <= plan.until:
            now = items[place][0]
            admit()
            continue
        now = max(now, plan.until or now)
        batch = [window[chosen] for chosen in plan.places]
        tokens = max(size for _, size in batch) * len(batch)
        seconds = cost.seconds(tokens) * max(rng.gauss(1, NOISE), 0.5)
        way.began(tokens, now)
        taken = set(plan.places)
        waiting = [item for number, item in enumerate(waiting) if number not in taken]
        now += seconds
        while place < len(items) and items[place][0] <= now:
            admit()
        way.ended(tokens, seconds)
        done.latencies += [now - at for at, _ in batch]
        done.batches.append(len(batch))
    return done


def row(cost: str, arrivals: str, load: float, way: str, served: Served) -> Row:
    ordered = sorted(served.latencies)
    total = len(ordered) + served.shed
    return Row(
        cost,
        arrivals,
        load,
        way,
        mean=statistics.fmean(ordered) * 1000,
        p50=ordered[len(ordered) // 2] * 1000,
        p99=ordered[int(len(ordered) * 0.99)] * 1000,
        mean_batch=statistics.fmean(served.batches),
        shed=served.shed / total,
    )


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| costs | arrivals | load | way | mean ms | p50 ms | p99 ms | mean batch | shed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.cost} | {r.arrivals} | {r.load:.0%} | {r.way} | {r.mean:.2f} | {r.p50:.2f} | {r.p99:.2f} "
        f"| {r.mean_batch:.1f} | {r.shed:.1%} |"
        for r in rows
    ]
    return "\n".join(lines)


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        asked = text.split(",")
        if unknown := [name for name in asked if name not in known]:
            raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
        return asked

    return parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--costs", type=names([*COSTS]), default=[*COSTS], help="cost models (default: cpu,gpu)")
    parser.add_argument("--arrivals", type=names([*ARRIVALS]), default=[*ARRIVALS], help="kinds (default: all)")
    parser.add_argument("--loads", type=lambda text: [float(each) for each in text.split(",")], default=[*LOADS])
    parser.add_argument("--requests", type=int, default=20_000, help="arrivals in each run (default: 20000)")
    parser.add_argument("--latency-ms", type=float, default=50.0, help="the objective (default: 50)")
    parser.add_argument("--shed", action="store_true", help="shed what cannot meet the objective")
    parser.add_argument("--measure", action="store_true", help="take the costs of the real classifier here as 'cpu'")
    parser.add_argument("--model-dir", type=Path, help="the model to measure (default: the packaged one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    arguments = parser.parse_args()
    costs = {name: COSTS[name] for name in arguments.costs}
    if arguments.measure:
        per_token, fixed = fitted(arguments.model_dir)
        costs = {"measured": Cost(per_token, fixed)}
    for name, cost in costs.items():
        print(f"{name}: {cost.per_token * 1e6:.1f} µs a padded token, {cost.fixed * 1000:.2f} ms a run")
    limits = Limits(latency=arguments.latency_ms / 1000)
    points = [(name, kind, load) for name in costs for kind in arguments.arrivals for load in arguments.loads]
    rows = []
    for name, kind, load in track(points, "simulating", console=Console(stderr=True)):
        items = arrivals_of(kind, costs[name], load, arguments.requests, arguments.seed)
        for way, policy in ways(limits).items():
            served = simulate(policy, limits, items, costs[name], arguments.seed, arguments.shed)
            rows.append(row(name, kind, load, way, served))
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"costs": {n: asdict(c) for n, c in costs.items()}, "rows": [asdict(r) for r in rows]}, indent=1)
        )


if __name__ == "__main__":
    main()

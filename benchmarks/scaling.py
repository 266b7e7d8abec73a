"""What alternatives to the scaling defaults cost, and what latency they give, on made-up loads: a Markdown table.

    python -m benchmarks.scaling

Each row changes one of the defaults. The loads are those of ``sluice scale simulate``; a worker takes 16 requests at a
time, of 2 s each (a language model behind an API), is ready 3 s after it was wanted, and costs 0.04 an hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from scaling.kube.pools import plans
from scaling.rules import Direction, Rules, Scaler
from scaling.simulate import Array, Costs, Decide, Outcome, Pool, Service, always, by_rules, replay
from scaling.traces import arrivals
from tasks import keys
from tasks.settings import Settings

TICK = 1.0
MOST = 20
TRACES = ("office-day", "bursts", "night-quiet", "steady", "talks")
QUEUES = 2
DOLLARS_PER_LOOK = 0.4e-6
"""What SQS asks for one call; there is one for each queue of a pool."""


def alternatives(rules: Rules, concurrency: int) -> Iterator[tuple[str, Rules]]:
    """Yield the defaults, then each with one thing changed."""
    yield f"**defaults**: polling {rules.polling:g}, cooldown {rules.cooldown:g}, target {rules.target:g}", rules
    for polling in (1, 5, 15, 30):
        if polling != rules.polling:
            yield f"polling {polling}", replace(rules, polling=polling, cooldown=max(rules.cooldown, 2 * polling))
    for cooldown in (5, 10, 60, 300):
        if cooldown != rules.cooldown:
            yield f"cooldown {cooldown}", replace(rules, cooldown=cooldown)
    for target in (concurrency // 2, concurrency, 2 * concurrency):
        if target != rules.target:
            yield f"target {target}", replace(rules, target=target)
    for window in (0, 120, 300):
        if window != rules.down.window:
            yield f"window down {window}", replace(rules, down=Direction(window, rules.down.changes))
    yield "Kubernetes' own way up", replace(rules, up=Rules(1, 1).up)


def main() -> None:
    """Print the table."""
    settings = Settings()
    name = keys.agent_pool("responder")
    [rules] = [replace(plan.rules, maximum=MOST) for plan in plans(settings) if plan.pool == name]
    pool = Pool(settings.pool(name).concurrency, Service(2.0), start_seconds=3.0)
    loads = {trace: arrivals(trace, TICK) for trace in TRACES}
    print("| | " + " | ".join(TRACES) + " | looks, $ a month |")
    print("|---|" + "---|" * (len(TRACES) + 1))
    for title, changed in alternatives(rules, pool.concurrency):
        looks = 30 * 86400 / changed.polling * QUEUES * DOLLARS_PER_LOOK
        row(title, [run(load, by_rules(Scaler(changed)), pool) for load in loads.values()], f"{looks:.2f}")
    row("queue length alone", [run(load, by_rules(Scaler(rules), in_flight=False), pool) for load in loads.values()])
    peaks = [int(run(load, by_rules(Scaler(rules)), pool).replicas.max()) for load in loads.values()]
    steady = zip(loads.values(), peaks, strict=True)
    row("always on, as many as the defaults have at most", [run(load, always(n), pool, n) for load, n in steady])


def run(load: Array, decide: Decide, pool: Pool, replicas: int = 0) -> Outcome:
    """Replay one load."""
    return replay(load, decide, pool, tick=TICK, replicas=replicas)


def row(title: str, outcomes: list[Outcome], looks: str = "") -> None:
    """Print one row: cost of a million requests; p50, p95 and p99 in seconds."""
    latencies = ("/".join(f"{seconds:g}" for seconds in outcome.latency.values()) for outcome in outcomes)
    costs = (f"{outcome.cost_per_million(Costs()):,.3g} $" for outcome in outcomes)
    cells = [f"{cost}, {latency}" for cost, latency in zip(costs, latencies, strict=True)]
    print(f"| {title} | " + " | ".join(cells) + f" | {looks} |", flush=True)


if __name__ == "__main__":
    main()

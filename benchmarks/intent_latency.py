"""Latency of classification on one core, in an event loop as in the worker, under open-loop Poisson load.

    python -m benchmarks.intent_latency [--seconds 10] [--model-dir DIR] [--provider cpu|cuda] [--json FILE]

Requests of 12 tokens arrive by a schedule that does not wait for answers; latency counts from the scheduled time, so
that a loop that is late counts too. Generator, loop and inference share the one core. Capacity is the throughput of the
adaptive batcher with enough requests always open; loads are shares of it, the same for every way of batching. The bare
loop tokenises and runs the session, and nothing else.

``queue alone`` is what the same way of batching gives in a simulation: Poisson arrivals at the same rate, and runs that
take what this point's batcher learnt that they take. The rest is overhead, and what others take from the core.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop
from rich.console import Console
from rich.progress import Progress

from benchmarks.intent_batching import Cost, Window, simulate
from benchmarks.intent_model import TEXT, Core, bare_session, median_seconds, pin
from handlers.cli.main import OBJECTS_BETWEEN_COLLECTIONS, report
from intent.batch_policy import Limits, Policy
from intent.batching import Batcher
from intent.classifier import Classifier, Prediction
from tasks.errors import SluiceError

LOADS: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
BATCHES: Final = {"cpu": (1, 8, 32), "cuda": (1, 8, 32, 128)}
OPEN: Final = 64
"""Requests that are open at saturation: two full batches, so that the next one is ready when one ends."""
ROUNDS: Final = 5
"""Saturation is the median of so many rounds, in each of which the ways take turns."""
TOKENS: Final = 12
SIMULATED: Final = 20_000
"""Arrivals in the simulation of a queue."""
DRAIN_SECONDS: Final = 60.0
P99_MS: Final = 15.0
P99_TIMES: Final = 4.0
SHORT_OF_BARE: Final = 0.15


@dataclass(frozen=True)
class Bare:
    """A loop of tokenising and running one batch after the other: milliseconds a batch, and requests a second."""

    batch: int
    ms: float
    per_second: float


@dataclass(frozen=True)
class Point:
    """One way at one load. Milliseconds; ``late`` is how long after its time a request was submitted.

    ``queue_p50`` and ``queue_p99`` are those of the simulated queue, None for one that grows.
    ``carried`` is whether answers kept up with arrivals, ``others`` the share of the core that other processes took.
    """

    way: str
    load: float
    offered: float
    p50: float
    p99: float
    late_p50: float
    late_p99: float
    queue_p50: float | None
    queue_p99: float | None
    mean_batch: float
    carried: bool
    others: float


@dataclass(frozen=True)
class Found:
    """Everything measured. ``single_ms`` is the median of one request alone, through the batcher.

    ``others`` is the share of the core that other processes took until all ways were saturated.
    """

    device: str
    model: str
    bare: list[Bare]
    single_ms: float
    saturation: dict[str, float]
    others: float
    points: list[Point]


def policy_of(way: str) -> Policy:
    policies: dict[str, Callable[[], Policy]] = {
        "adaptive": lambda: Policy(Limits()),
        "window 5 ms": lambda: Window(Limits(), 0.005),
        "no batching": lambda: Policy(Limits(max_batch=1)),
    }
    return policies[way]()


def batcher_of(classifier: Classifier, policy: Policy) -> Batcher[str, Prediction]:
    return Batcher(classifier.encode, classifier.classify_ids, policy)


def queue_alone(way: str, learnt: Policy, rate: float) -> tuple[float, float]:
    """Return p50 and p99, in milliseconds, of the queue at ``rate`` requests a second, all of one length."""
    rng, now, items = random.Random(1), 0.0, []
    for _ in range(SIMULATED):
        now += rng.expovariate(rate)
        items.append((now, TOKENS))
    cost = Cost(learnt.cost.per_token, learnt.cost.fixed)
    latencies = simulate(policy_of(way), learnt.limits, items, cost, seed=1, shed=False).latencies
    return percentile(latencies, 0.5) * 1000, percentile(latencies, 0.99) * 1000


WAYS: Final = ("adaptive", "window 5 ms", "no batching")


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


async def open_loop(
    batcher: Batcher[str, Prediction], rate: float, seconds: float, seed: int
) -> tuple[list[float], list[float], bool]:
    """Submit at ``rate`` a second; return latencies and lateness in seconds, and whether answers kept up."""
    rng = random.Random(seed)
    latencies: list[float] = []
    late: list[float] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one(due: float) -> None:
        late.append(time.perf_counter() - due)
        await batcher.submit(TEXT)
        latencies.append(time.perf_counter() - due)

    due = begun = time.perf_counter()
    end = begun + seconds
    while (due := due + rng.expovariate(rate)) < end:
        # A loop's timer has a grain of a millisecond; what is left of it is lateness, and counts.
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        task = asyncio.create_task(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    kept_up = len(tasks) < max(0.2 * rate, OPEN)
    async with asyncio.timeout(DRAIN_SECONDS):
        await asyncio.gather(*tasks)
    return latencies, late, kept_up


async def saturated(batcher: Batcher[str, Prediction], seconds: float) -> float:
    """Return answers a second with ``OPEN`` requests always open."""
    end = time.perf_counter() + seconds
    done = 0

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await batcher.submit(TEXT)
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(OPEN)))
    return done / (time.perf_counter() - begun)


async def single(batcher: Batcher[str, Prediction], count: int) -> float:
    """Return the median milliseconds of one request after the other."""
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        await batcher.submit(TEXT)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


async def measured(classifier: Classifier, bare: list[Bare], device: str, seconds: float, bar: Progress) -> Found:
    shown = bar.add_task("", total=1 + len(WAYS) * (ROUNDS + len(LOADS)))

    def step(text: str) -> None:
        bar.update(shown, description=text, advance=1)

    core = Core()
    async with batcher_of(classifier, policy_of("adaptive")) as batcher:
        await single(batcher, 20)
        alone = await single(batcher, max(int(50 * seconds), 50))
    step("one by one")
    rounds: dict[str, list[float]] = {way: [] for way in WAYS}
    for way in WAYS * ROUNDS:
        async with batcher_of(classifier, policy_of(way)) as batcher:
            await saturated(batcher, seconds / ROUNDS / 10)
            rounds[way].append(await saturated(batcher, seconds / ROUNDS))
        step(f"saturation, {way}")
    saturation = {way: statistics.median(rates) for way, rates in rounds.items()}
    others, points = core.others(), []
    for number, load in enumerate(LOADS):
        # The same arrivals for every way, one way right after the other: a machine that drifts hits all alike.
        for way in WAYS:
            rate, policy = load * saturation["adaptive"], policy_of(way)
            async with batcher_of(classifier, policy) as batcher:
                await single(batcher, 20)
                before, core = batcher.stats, Core()
                latencies, late, kept_up = await open_loop(batcher, rate, seconds, seed=number)
                after, taken = batcher.stats, core.others()
            mean_batch = (after.texts - before.texts) / (after.batches - before.batches)
            p50, p99, late50, late99 = (
                percentile(values, share) * 1000 for values in (latencies, late) for share in (0.5, 0.99)
            )
            queue = queue_alone(way, policy, rate) if kept_up else (None, None)
            points.append(Point(way, load, rate, p50, p99, late50, late99, *queue, mean_batch, kept_up, taken))
            step(f"{load:.0%}, {way}")
    return Found(device, classifier.version, bare, alone, saturation, others, points)


def bare_loop(run: Any, batches: Sequence[int], seconds: float) -> list[Bare]:
    found = []
    for batch in batches:
        once = partial(run, [TEXT] * batch)
        least = median_seconds(once, 3)
        ms = median_seconds(once, max(int(seconds / least), 5)) * 1000
        found.append(Bare(batch, ms, batch / ms * 1000))
    return found


# What is told -------------------------------------------------------------------------------------


def bare_table(bare: Sequence[Bare], device: str) -> str:
    lines = [f"Bare loop, tokenising included, on {device}:", ""]
    lines += ["| batch | ms a batch, median | requests a second |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {b.batch} | {b.ms:.2f} | {b.per_second:.0f} |" for b in bare)])


def points_table(found: Found) -> str:
    names = (
        "load",
        "a second",
        "way",
        "p50 ms",
        "p99 ms",
        "queue alone",
        "submitted late",
        "mean batch",
        "core, others",
    )
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for p in found.points:
        way = p.way if p.carried else f"{p.way} (does not keep up)"
        queue = f"{p.queue_p50:.2f}, {p.queue_p99:.2f}" if p.queue_p50 and p.queue_p99 else "-"
        late = f"{p.late_p50:.2f}, {p.late_p99:.2f}"
        lines.append(
            f"| {p.load:.0%} | {p.offered:.0f} | {way} | {p.p50:.2f} | {p.p99:.2f} "
            f"| {queue} | {late} | {p.mean_batch:.1f} | {p.others:.0%} |"
        )
    return "\n".join(lines)


def verdicts(found: Found) -> dict[str, bool]:
    """Return what was promised, and whether it holds."""
    [half] = [p for p in found.points if p.way == "adaptive" and p.load == 0.5]
    best = max(each.per_second for each in found.bare)
    short = 1 - found.saturation["adaptive"] / best
    return {
        f"p99 at 50% below {P99_MS:g} ms: {half.p99:.2f} ms": half.p99 < P99_MS,
        f"p99 at 50% at most {P99_TIMES:g} times a request alone: {half.p99 / found.single_ms:.1f} times": (
            half.p99 <= P99_TIMES * found.single_ms
        ),
        f"saturation within {SHORT_OF_BARE:.0%} of the bare loop's best: {short:+.1%} short": short <= SHORT_OF_BARE,
    }


def told(found: Found) -> str:
    saturation = ", ".join(f"{way} {rate:.0f}" for way, rate in found.saturation.items())
    judged = "\n".join(f"* {'yes' if holds else 'NO'}: {what}" for what, holds in verdicts(found).items())
    return "\n\n".join(
        [
            f"Model {found.model}, one core, one thread.",
            bare_table(found.bare, found.device),
            f"One request alone, through the batcher: {found.single_ms:.2f} ms, median.",
            f"Answers a second at saturation: {saturation}. Others took {found.others:.0%} of the core meanwhile.",
            points_table(found),
            judged,
        ]
    )


def seconds_of(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 3600, is {text}")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=seconds_of, default=10.0, help="of each measurement (default: 10)")
    parser.add_argument("--model-dir", type=Path, help="the model (default: the packaged one)")
    parser.add_argument("--provider", choices=[*BATCHES], default="cpu", help="cuda: the bare loop only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    arguments = parser.parse_args()
    pin()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    try:
        run, device = bare_session(arguments.provider, arguments.model_dir)
        bare = bare_loop(run, BATCHES[arguments.provider], arguments.seconds)
        if arguments.provider == "cuda":
            print(bare_table(bare, device))
            document: dict[str, Any] = {"device": device, "bare": [asdict(each) for each in bare]}
        else:
            classifier = Classifier.load(arguments.model_dir)
            with Progress(console=Console(stderr=True)) as bar:
                found = uvloop.run(measured(classifier, bare, device, arguments.seconds, bar))
            print(told(found))
            document = {**asdict(found), "holds": verdicts(found)}
    except SluiceError as error:
        report(error)
        sys.exit(error.exit_code)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

"""Changing the intent model under load: how long requests take just before, during and after.

    python -m benchmarks.intent_update [--swaps 6] [--load 0.5] [--core 0] [--json]

One process on one core serves Poisson arrivals at a share of what it can do, through the same code as a worker: it
notices promotions in a store in memory, fetches, verifies, loads, warms and swaps. The generator runs on the same event
loop, so whatever holds that up counts: latency is from the time at which a request was due. ``stall`` is the longest
that the loop did not get to run in a second, with what the machine's other work takes from it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import uvloop

from intent.examples import read_examples
from intent.live import LiveModels
from intent.manifest import default_dir
from intent.promotions import Change, Pinned, PromotionLog
from intent.versions import VersionStore
from tasks.contracts.asked import Asked
from tasks.contracts.base import utc_now
from tasks.settings import IntentSettings, Settings
from tasks.stores.objects import MemoryObjectStore
from tests.support import models

PHASES: Final = ("before", "swap", "after")
REST_SECONDS: Final = 3.0
TICK_SECONDS: Final = 0.001


class NoCounts:
    async def add(self, key: str, counts: object, *, keep_seconds: int) -> None:
        return


class Load:
    """Poisson arrivals, each with the time it was due and how long it took, in seconds; and the loop's stalls."""

    def __init__(self, live: LiveModels, texts: Iterable[str], rate: float) -> None:
        self._live = live
        self._texts = cycle(texts)
        self._rate = rate
        self.done: list[tuple[float, float]] = []
        self.stalls: list[tuple[float, float]] = []
        self.failed = 0
        self._running: set[asyncio.Task[None]] = set()

    async def arrive(self) -> None:
        chance, due, number = random.Random(7), time.perf_counter(), 0
        while True:
            due += chance.expovariate(self._rate)
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            number += 1
            task = asyncio.create_task(self._one(f"r{number}", due))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def tick(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            now = time.perf_counter()
            self.stalls.append((now, now - before - TICK_SECONDS))

    async def _one(self, request_id: str, due: float) -> None:
        try:
            await self._live.classify(Asked(id=request_id, text=next(self._texts)))
            self.done.append((due, time.perf_counter() - due))
        except Exception:  # noqa: BLE001  counted
            self.failed += 1

    async def finish(self) -> None:
        while self._running:
            await asyncio.gather(*self._running)


async def capacity(live: LiveModels, texts: list[str]) -> float:
    """Return how many requests a second come through one at a time."""
    for text in texts[:20]:
        await live.classify(Asked(id="warm", text=text))
    begun = time.perf_counter()
    for text in texts:
        await live.classify(Asked(id="r", text=text))
    return len(texts) / (time.perf_counter() - begun)


async def measure(swaps: int, share: float, folder: Path) -> dict[str, Any]:
    store = MemoryObjectStore()
    settings = Settings(intent=IntentSettings(refresh_seconds=0.05, cache_dir=folder / "cache"))
    pinned = await publish(store, settings, folder)
    live = LiveModels(settings, store, NoCounts(), worker="bench", report=print)
    texts = [example.text for example in read_examples(default_dir().parent / "data" / "holdout.jsonl")]
    await live.start()
    per_second = await capacity(live, texts)
    load = Load(live, texts, per_second * share)
    work = [asyncio.create_task(load.arrive()), asyncio.create_task(load.tick())]
    log, marks = PromotionLog(store, settings.intent.family), []
    for one, _ in zip(cycle(pinned), range(swaps), strict=False):
        await asyncio.sleep(REST_SECONDS)
        begun = time.perf_counter()
        await log.append(await log.promotion(await log.latest(), one, 1.0, Change(who="bench", at=utc_now())))
        while live.version != one.version:  # noqa: ASYNC110  as somebody outside would see it
            await asyncio.sleep(0.001)
        marks.append((begun, time.perf_counter()))
    await asyncio.sleep(REST_SECONDS)
    for task in work:
        task.cancel()
    await load.finish()
    await live.close()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "capacity_per_second": round(per_second, 1),
        "rate_per_second": round(per_second * share, 1),
        "failed": load.failed,
        "swaps": [figures(load, begun, over) for begun, over in marks],
    }


async def publish(store: MemoryObjectStore, settings: Settings, folder: Path) -> list[Pinned]:
    versions, found = VersionStore(store, settings.intent.family), []
    for number in range(2):
        models.variant(folder / str(number), threshold=0.4 + number / 10)
        found.append((await versions.publish(folder / str(number)))[0])
    return found


def figures(load: Load, begun: float, over: float) -> dict[str, Any]:
    """Return latencies and stalls, in milliseconds: a second before, from the promotion on for a second or all of the
    change where that is longer, and a second from two after it."""
    end = max(begun + 1.0, over + 0.2)
    spans = {"before": (begun - 1.0, begun), "swap": (begun, end), "after": (end + 0.5, end + 1.5)}
    row: dict[str, Any] = {"took_ms": round((over - begun) * 1000, 1)}
    for phase, (first, last) in spans.items():
        times = sorted(took * 1000 for due, took in load.done if first <= due < last)
        row[phase] = {
            "requests": len(times),
            "p50_ms": round(statistics.median(times), 2),
            "p99_ms": round(times[min(int(len(times) * 0.99), len(times) - 1)], 2),
            "stall_ms": round(max(gap for at, gap in load.stalls if first <= at < last) * 1000, 2),
        }
    return row


def show(found: dict[str, Any]) -> None:
    print(
        f"{found['rate_per_second']:g} requests a second of {found['capacity_per_second']:g}, on {found['cores']} "
        f"core(s); failed: {found['failed']}"
    )
    print(f"{'swap':>4} {'took ms':>8}" + "".join(f" | {phase:>6} n   p50    p99  stall" for phase in PHASES))
    for number, row in enumerate(found["swaps"], 1):
        cells = (row[phase] for phase in PHASES)
        print(
            f"{number:>4} {row['took_ms']:>8.0f}"
            + "".join(
                f" | {cell['requests']:>8} {cell['p50_ms']:>5.1f} {cell['p99_ms']:>6.1f} {cell['stall_ms']:>6.1f}"
                for cell in cells
            )
        )
    for name in ("p50_ms", "p99_ms", "stall_ms"):
        medians = (statistics.median(row[phase][name] for row in found["swaps"]) for phase in PHASES)
        said = (f"{phase} {value:.1f}" for phase, value in zip(PHASES, medians, strict=True))
        print(f"median {name}: {', '.join(said)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--swaps", type=int, default=6)
    parser.add_argument("--load", type=float, default=0.5, help="of what one core can do")
    parser.add_argument("--core", type=int, default=0, help="the core to run on")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {chosen.core})
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(measure(chosen.swaps, chosen.load, Path(folder)))
    if chosen.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()

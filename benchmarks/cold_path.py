"""Cold start of the whole path: one request while every pool is at zero, from its submission to its result, in parts.

    python -m benchmarks.cold_path [--repeats 10] [--polling 1.0] [--json FILE]

Embedded servers, the extractive responder, and ``sluice autoscale`` as it is: once starting workers by exec, once from
a warm parent, turn by turn. Each turn begins with a new autoscaler and no worker, and the request comes at a random
moment between two looks. The parts are consecutive and add up to the whole: each mark is taken by the process that
passes it (its log line, its pid file, the result's own timings), all on one clock.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil
from rich.progress import Progress

from benchmarks.cold import servers, until
from handlers.bench.meter import machine
from handlers.cli.common import console, print_table
from handlers.producer import AsyncProducer
from scaling.local import pool_of
from scaling.processes import Processes, Spawned
from scaling.stack import AUTOSCALER
from scaling.warm import PARENT
from tasks import keys
from tasks.settings import Settings
from tasks.settings_load import home, load
from tasks.stores.connect import Stores, connect

EXEC: Final = "exec"
WARM: Final = "warm parent"
LIMITS_MS: Final = {EXEC: 1500.0, WARM: 450.0}
"""What the whole may take beyond one polling interval."""
AGENTS: Final = keys.agent_pool("responder")
QUESTION: Final = "What is a message queue?"
WHOLE: Final = "whole"
GIVE_UP_SECONDS: Final = 60.0
REST_SECONDS: Final = 2.0


@dataclass
class Found:
    """What one way to start workers gave. Parts in milliseconds, memory in MB."""

    parts: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, list[float]] = field(default_factory=dict)
    parent_cpu_ms_at_rest: list[float] = field(default_factory=list)


def said(processes: Processes, name: str, event: str, pool: str | None = None) -> float:
    """Return when a process logged ``event`` first, in Unix seconds."""
    for text in processes.log(name).read_text().splitlines():
        line = json.loads(text)
        if line["event"] == event and pool in {None, line.get("pool")}:
            return datetime.fromisoformat(line["timestamp"]).timestamp()
    raise SystemExit(f"{name} never said {event!r}; it said: {processes.log(name).read_text()}")


async def become(true: Callable[[], object]) -> None:
    end = time.monotonic() + GIVE_UP_SECONDS
    while not true():
        if time.monotonic() > end:
            raise SystemExit(f"not ready within {GIVE_UP_SECONDS:g} s")
        await asyncio.sleep(0.02)


class Turn:
    """One autoscaler, one request."""

    def __init__(self, settings: Settings, stores: Stores, found: Found, *, warm: bool) -> None:
        self._settings = settings
        self._stores = stores
        self._found = found
        self._warm = warm
        self._processes = Processes(home())

    async def run(self) -> None:
        await self._stores.link.call("FLUSHALL")
        try:
            await self._autoscaler()
            await self._ask()
            self._weigh()
        finally:
            processes = self._processes.all()
            self._processes.stop((one for one in processes if one.name == AUTOSCALER), grace=10)
            self._processes.stop((one for one in processes if pool_of(one) or one.name == PARENT), grace=10)
            for log in self._processes.log("x").parent.glob("*.log"):
                if log.stem in {AUTOSCALER, PARENT} or log.stem.startswith("worker-"):
                    log.unlink()

    async def _autoscaler(self) -> None:
        """Start it, and wait until it looks and its parent is ready and has rested."""
        command = [sys.executable, "-m", "handlers.cli.main", "autoscale"]
        self._processes.start(AUTOSCALER, command, env={"SLUICE_SCALING__WARM_PARENT": str(self._warm).lower()})
        await become(lambda: not self._warm or self._logged(PARENT, "warm parent ready"))
        while not await self._stores.board.pools():  # noqa: ASYNC110  another process writes it
            await asyncio.sleep(0.02)
        parent = psutil.Process(self._find(PARENT).pid) if self._warm else None
        before = parent.cpu_times() if parent else None
        await asyncio.sleep(REST_SECONDS + random.uniform(0, self._settings.scaling.polling_seconds))
        if parent and before:
            after = parent.cpu_times()
            used = after.user + after.system - before.user - before.system
            self._found.parent_cpu_ms_at_rest.append(used * 1000)

    async def _ask(self) -> None:
        async with AsyncProducer(self._settings) as producer:
            marks = [("", time.time())]
            request = await producer.submit(QUESTION)
            marks.append(("accepted", time.time()))
            await until(self._stores, keys.ref("default", request), AGENTS)
            over = time.time()
            result = await producer.result(request, 1)
        if result.agent is None or keys.agent_pool(result.agent.type) != AGENTS or result.timings.routed_at is None:
            raise SystemExit(f"not by {AGENTS}: {result}")
        marks += self._started(keys.INTENT_POOL)
        marks.append(("intent: done", result.timings.routed_at.timestamp()))
        marks += self._started(AGENTS)
        marks.append((f"{AGENTS}: first result", over))
        for (_, before), (part, at) in itertools.pairwise(marks):
            self._keep(self._found.parts, part, (at - before) * 1000)
        self._keep(self._found.parts, WHOLE, (over - marks[0][1]) * 1000)

    def _started(self, pool: str) -> list[tuple[str, float]]:
        worker = next(one for one in self._processes.all() if pool_of(one) == pool)
        file = home() / "pids" / f"{worker.name}.json"
        return [
            (f"{pool}: noticed", said(self._processes, AUTOSCALER, "scaling", pool)),
            (f"{pool}: process", file.stat().st_mtime),
            (f"{pool}: worker ready", said(self._processes, worker.name, "worker ready")),
        ]

    def _weigh(self) -> None:
        for one in self._processes.all():
            name = pool_of(one) or one.name
            if name in {keys.INTENT_POOL, AGENTS, PARENT, AUTOSCALER}:
                memory = psutil.Process(one.pid).memory_full_info()
                self._keep(self._found.memory, f"{name} RSS", memory.rss / 2**20)
                self._keep(self._found.memory, f"{name} PSS", memory.pss / 2**20)

    def _find(self, name: str) -> Spawned:
        found = self._processes.find(name)
        if found is None:
            raise SystemExit(f"{name} does not run: {self._processes.log(name).read_text()}")
        return found

    def _logged(self, name: str, event: str) -> bool:
        log = self._processes.log(name)
        return log.exists() and event in log.read_text()

    @staticmethod
    def _keep(kept: dict[str, list[float]], name: str, value: float) -> None:
        kept.setdefault(name, []).append(value)


async def measure(settings: Settings, repeats: int) -> dict[str, Found]:
    found = {EXEC: Found(), WARM: Found()}
    with Progress(console=console(err=True)) as bar:
        task = bar.add_task("cold paths", total=2 * (repeats + 1))
        async with connect(settings) as stores:
            for turn in range(repeats + 1):
                for way, kept in found.items():
                    # The first one fills the page cache and compiles.
                    await Turn(settings, stores, kept if turn else Found(), warm=way == WARM).run()
                    bar.advance(task)
    return found


def rows(found: dict[str, Found], pick: Callable[[Found], dict[str, list[float]]]) -> list[list[str]]:
    """Return a line for each part: median and worst of each way."""
    names = dict.fromkeys(name for kept in found.values() for name in pick(kept))
    return [
        [name, *(figure for kept in found.values() for figure in figures(pick(kept).get(name, [])))] for name in names
    ]


def figures(values: Sequence[float]) -> tuple[str, str]:
    return (f"{statistics.median(values):.0f}", f"{max(values):.0f}") if values else ("", "")


def verdicts(found: dict[str, Found], polling: float) -> list[str]:
    told = []
    for way, kept in found.items():
        worst = max(kept.parts[WHOLE])
        held = "held" if worst <= polling * 1000 + LIMITS_MS[way] else "NOT held"
        told.append(f"{way}: worst {worst:.0f} ms, at most {polling * 1000:.0f} + {LIMITS_MS[way]:.0f} ms: {held}")
    return told


def report(found: dict[str, Found], polling: float, repeats: int) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        **machine(),
        "load_average": os.getloadavg()[0],
        "polling_seconds": polling,
        "repeats": repeats,
        "ways": {
            way: {
                "ms": {name: [round(value, 1) for value in values] for name, values in kept.parts.items()},
                "mb": {name: [round(value, 1) for value in values] for name, values in kept.memory.items()},
                "parent_cpu_ms_in_2_s_of_rest": kept.parent_cpu_ms_at_rest,
            }
            for way, kept in found.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="measured requests for each way")
    parser.add_argument("--polling", type=float, default=1.0, help="scaling.polling_seconds")
    parser.add_argument("--json", type=Path, help="Also write every measurement here.")
    options = parser.parse_args()
    if options.repeats < 1 or options.polling <= 0:
        parser.error("--repeats must be at least 1, --polling above 0")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with servers():
        os.environ |= {
            "SLUICE_LOG_LEVEL": "INFO",
            "SLUICE_SCALING__POLLING_SECONDS": str(options.polling),
            "SLUICE_SCALING__COOLDOWN_SECONDS": str(GIVE_UP_SECONDS),  # no worker goes before it is looked at
        }
        found = asyncio.run(measure(load(), options.repeats))
    columns = [f"{way}, {figure}" for way in found for figure in ("median", "worst")]
    print_table("Cold path, ms", ["part", *columns], rows(found, lambda kept: kept.parts))
    print_table("Memory, MB", ["process", *columns], rows(found, lambda kept: kept.memory))
    rest = max(found[WARM].parent_cpu_ms_at_rest)
    console().print(f"warm parent at rest: at most {rest:.0f} ms of processor time in {REST_SECONDS:g} s and more")
    console().print("\n".join(verdicts(found, options.polling)))
    if options.json:
        options.json.write_text(json.dumps(report(found, options.polling, options.repeats), indent=2) + "\n")
        console().print(f"written to {options.json}")


if __name__ == "__main__":
    main()

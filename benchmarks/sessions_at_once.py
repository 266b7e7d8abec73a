"""How many requests wait for a model at once, in how much memory, and what each costs.

    python -m benchmarks.sessions_at_once [--sizes 50,200,850,2000] [--workers 2] [--stream] [--json FILE]

Each request is a turn of a session of its own and takes both hops on real servers. The model is an HTTP server in a
process of its own that takes two seconds for each answer (:mod:`benchmarks.model_server`). The requests are routed
while the workers of the agent pool are held still; then these are let go. So what is measured is one agent pool with a
backlog. Requests name their intent: the classifier is not measured here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.cold import servers
from handlers.bench.meter import machine
from handlers.cli.common import console, print_table
from handlers.producer import AsyncProducer
from tasks import keys
from tasks.contracts.result import Result
from tasks.settings import Settings
from tasks.settings_load import load
from tasks.stores.connect import Stores, connect

AGENTS: Final = keys.agent_pool("responder")
WARM_UP: Final = 40
LOOK_SECONDS: Final = 0.1
GIVE_UP_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Row:
    """One size. Times are seconds from the moment at which the workers were let go."""

    requests: int
    peak_in_flight: int
    connections: int
    wall_s: float
    p50_s: float
    p99_s: float
    worker_cpu_ms_per_request: float
    worker_rss_mb: float
    statuses: dict[str, int]


class Model:
    """The slow model's server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            return dict(json.load(answer))


class Workers:
    """Worker processes, and what they use."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self._processes = [psutil.Process(process.pid) for process in processes]
        self.peak_rss = 0.0

    def send(self, number: signal.Signals) -> None:
        for process in self._processes:
            process.send_signal(number)

    def weigh(self) -> None:
        self.peak_rss = max(self.peak_rss, sum(process.memory_info().rss for process in self._processes) / 2**20)

    @property
    def cpu(self) -> float:
        """Return the CPU seconds so far."""
        times = [process.cpu_times() for process in self._processes]
        return float(sum(time.user + time.system for time in times))


@contextmanager
def spawned(*command: str, count: int = 1, output: Any = None) -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen([sys.executable, "-m", *command], stdout=output) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in processes:
            process.wait(60)


def configure(model: Model, most: int, *, stream: bool) -> Settings:
    """Point this process's environment, and so the workers', at the slow model."""
    slow = {"base_url": f"{model.url}/v1", "stream": stream}
    os.environ["SLUICE_MODELS"] = json.dumps({"slow": slow})
    os.environ["SLUICE_DEFAULT_MODEL"] = "slow"
    os.environ["SLUICE_AGENTS"] = json.dumps([{"type": "responder", "concurrency": most}])
    os.environ["SLUICE_SCALING__DEFAULT__CONCURRENCY"] = "256"
    return load()


async def until(stores: Stores, waiting: int) -> None:
    """Wait until ``waiting`` requests wait for an agent."""
    end = time.monotonic() + GIVE_UP_SECONDS
    while (await stores.broker.depths([AGENTS]))[AGENTS].waiting < waiting:
        if time.monotonic() > end:
            raise SystemExit(f"{waiting} requests were not routed within {GIVE_UP_SECONDS:g} s")
        await asyncio.sleep(LOOK_SECONDS)


async def submit(producer: AsyncProducer, count: int) -> list[str]:
    stamp = time.time_ns()
    items = [
        {"text": f"What is a message queue, in {n} words?", "intent": "answer_question", "session_id": f"s{stamp}-{n}"}
        for n in range(count)
    ]
    return await producer.submit_many(items)


async def collect(producer: AsyncProducer, ids: list[str], workers: Workers) -> list[Result]:
    """Wait for the results; watch the memory meanwhile."""

    async def watch() -> None:
        while True:
            workers.weigh()
            await asyncio.sleep(LOOK_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            return [result async for result in producer.results(ids)]
    finally:
        watching.cancel()


async def row(size: int, producer: AsyncProducer, stores: Stores, model: Model, workers: Workers) -> Row:
    workers.send(signal.SIGSTOP)
    ids = await submit(producer, size)
    await until(stores, size)
    model.get("/reset")
    workers.peak_rss, cpu = 0.0, workers.cpu
    begun = datetime.now(UTC)
    workers.send(signal.SIGCONT)
    results = await collect(producer, ids, workers)
    cpu, stats = workers.cpu - cpu, model.get("/stats")
    ends = sorted((result.timings.finished_at - begun).total_seconds() for result in results)
    return Row(
        requests=size,
        peak_in_flight=stats["peak"],
        connections=stats["connections"],
        wall_s=round(ends[-1], 2),
        p50_s=round(statistics.median(ends), 2),
        p99_s=round(ends[max(int(len(ends) * 0.99) - 1, 0)], 2),
        worker_cpu_ms_per_request=round(cpu / size * 1000, 2),
        worker_rss_mb=round(workers.peak_rss, 1),
        statuses=dict(Counter(result.status.value for result in results)),
    )


async def measure(settings: Settings, sizes: Sequence[int], model: Model, workers: Workers) -> list[Row]:
    async with connect(settings) as stores, AsyncProducer(settings) as producer:
        await collect(producer, await submit(producer, WARM_UP), workers)
        rows = []
        for size in sizes:
            rows.append(await row(size, producer, stores, model, workers))
            console(err=True).print(rows[-1])
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="50,200,850,2000")
    parser.add_argument("--workers", type=int, default=2, help="Processes of the agent pool: one for each core.")
    parser.add_argument("--seconds", type=float, default=2.0, help="How long the model takes.")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--json", type=Path, help="Also write the figures here.")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    asking = ("benchmarks.model_server", "--seconds", str(options.seconds))
    with servers(), spawned(*asking, output=subprocess.PIPE) as (server,):
        assert server.stdout
        model = Model(int(server.stdout.readline()))
        settings = configure(model, max(sizes), stream=options.stream)
        worker = ("handlers.cli.main", "worker", "--pool")
        with spawned(*worker, keys.INTENT_POOL), spawned(*worker, AGENTS, count=options.workers) as started:
            rows = asyncio.run(measure(settings, sizes, model, Workers(started)))
    columns = list(asdict(rows[0]))
    print_table(
        "Requests that wait for a model", columns, [[str(value) for value in asdict(row).values()] for row in rows]
    )
    if options.json:
        facts = {"date": datetime.now(UTC).date().isoformat(), **machine(), "workers": options.workers}
        facts |= {"model_seconds": options.seconds, "stream": options.stream, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
        console().print(f"written to {options.json}")


if __name__ == "__main__":
    main()

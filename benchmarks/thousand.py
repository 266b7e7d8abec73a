"""A thousand requests from an empty, idle pipeline: requests per second, latency, memory of each kind of worker.

    make bench                       # the extractive responder: what Sluice itself costs
    make bench ARGS='--model embedded --requests 100'

Everything runs on this machine: submitter, broker, S3 server, workers. Latencies include the wait in the queue.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path

import psutil

from handlers.cli.common import console, print_table
from handlers.producer import AsyncProducer
from scaling.local import pool_of
from scaling.stack import Stack
from tasks.contracts.result import Result
from tasks.settings_load import load

TEXTS = (
    "How do I reset my password on portal {}?",
    "Plan the rollout of feature {} step by step",
    "Run SELECT count(*) FROM orders WHERE id > {}",
    "Write an email about incident {}",
    "I want to talk to a person about ticket {}",
    "Summarise: item {} arrived late. It was broken. We refunded it.",
)


async def measure(stack: Stack, requests: int) -> tuple[list[Result], float, dict[str, float]]:
    """Submit, wait for all; return results, seconds, and the peak memory in MB of one process of each name."""
    peaks: dict[str, float] = defaultdict(float)

    async def watch() -> None:
        while True:
            for spawned in await asyncio.to_thread(stack.processes.all):
                name = pool_of(spawned) or spawned.name
                peaks[name] = max(peaks[name], spawned.rss_bytes() / 2**20)
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    async with AsyncProducer(stack.settings) as producer:
        begun = time.perf_counter()
        ids = await producer.submit_many(TEXTS[n % len(TEXTS)].format(n) for n in range(requests))
        results = [result async for result in producer.results(ids)]
        seconds = time.perf_counter() - begun
    watching.cancel()
    return results, seconds, dict(peaks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--model", choices=["extractive", "embedded"], default="extractive")
    parser.add_argument("--json", type=Path, help="Also write the figures here.")
    options = parser.parse_args()
    os.environ["SLUICE_DEFAULT_MODEL"] = options.model
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLUICE_HOME"] = folder
        stack = Stack(Path(folder), load())
        os.environ.update(stack.up(lambda line: None))
        stack = Stack(Path(folder), load())
        try:
            results, seconds, peaks = asyncio.run(measure(stack, options.requests))
        finally:
            stack.down(purge=False, tell=lambda line: None)
    latencies = sorted(result.timings.latency_seconds for result in results)
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": psutil.cpu_count(),
        "python": platform.python_version(),
        "model": options.model,
        "requests": len(results),
        "seconds": round(seconds, 1),
        "requests_per_second": round(len(results) / seconds, 1),
        "latency_p50_s": round(statistics.median(latencies), 2),
        "latency_p99_s": round(latencies[int(len(latencies) * 0.99) - 1], 2),
        "statuses": dict(Counter(result.status.value for result in results)),
    }
    print_table("From an idle pipeline, workers at zero", ("figure", "value"), list(figures.items()))
    print_table("Peak resident memory of one process", ("process", "MB"), [(k, round(v)) for k, v in peaks.items()])
    if options.json:
        options.json.write_text(json.dumps({**figures, "peak_rss_mb": peaks}, indent=2) + "\n")
        console().print(f"written to {options.json}")


if __name__ == "__main__":
    main()

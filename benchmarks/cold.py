"""Cold start of a worker: from exec to its first result, for the intent pool and for an agent pool, and in parts.

    python -m benchmarks.cold [--repeats 7] [--json]

The servers run and a request waits. ``total`` is the command that the autoscaler starts, as it is; the parts come from
a run of the same steps one after the other, which the real command partly does side by side. The floor is what no
worker of its kind can do without: the interpreter, its one indispensable library, and the model.
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
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.progress import Progress

from handlers.producer import AsyncProducer
from scaling.stack import Stack
from tasks import keys
from tasks.settings import Settings
from tasks.settings_load import load
from tasks.stores.connect import Stores, connect

AGENTS: Final = keys.agent_pool("responder")
POOLS: Final = (keys.INTENT_POOL, AGENTS)
FLOOR: Final = {
    keys.INTENT_POOL: ("interpreter", "asyncio", "numpy", "onnxruntime", "tokenizers", "model"),
    AGENTS: ("interpreter", "asyncio", "autogen"),
}
PARTS: Final = Path(__file__).with_name("cold_parts.py")
LOOK_SECONDS: Final = 0.002
GIVE_UP_SECONDS: Final = 60.0


@contextmanager
def servers() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLUICE_HOME"] = folder
        stack = Stack(Path(folder), Settings())
        try:
            os.environ.update(stack.start_servers(lambda line: None, model=False))
            os.environ["SLUICE_DEFAULT_MODEL"] = "extractive"
            os.environ["SLUICE_LOG_LEVEL"] = "WARNING"
            yield load()
        finally:
            stack.down(purge=True, tell=lambda line: None)


async def prepare(settings: Settings, stores: Stores, pool: str) -> str:
    """Empty the queues and put one request in front of ``pool``; return its ref."""
    await stores.link.call("FLUSHALL")
    async with AsyncProducer(settings) as producer:
        # The intent pool has to read it; the agents' must get it whatever is read.
        intent = {} if pool == keys.INTENT_POOL else {"intent": "answer_question"}
        request_id = await producer.submit("What is a message queue?", **intent)
    ref = keys.ref("default", request_id)
    if pool != keys.INTENT_POOL:
        router = start("-m", "handlers.cli.main", "worker", "--pool", keys.INTENT_POOL)
        await until(stores, ref, keys.INTENT_POOL)
        await end(router)
    return ref


async def until(stores: Stores, ref: str, pool: str) -> None:
    """Wait until ``pool`` has done its part: the request is on the next queue, or it is over."""
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < give_up:
        stage = await stores.link.call("HGET", keys.row(ref), "stage")
        if stage is None or (pool == keys.INTENT_POOL and stage == b"work"):
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise SystemExit(f"{pool}: no result within {GIVE_UP_SECONDS:g} s")


def start(*command: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *command], env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


async def end(process: subprocess.Popen[bytes]) -> bytes:
    process.send_signal(signal.SIGTERM)
    said, _ = await asyncio.to_thread(process.communicate)
    return said


async def total(settings: Settings, stores: Stores, pool: str) -> float:
    """Return milliseconds from exec to the first result."""
    ref = await prepare(settings, stores, pool)
    begun = time.monotonic()
    process = start("-m", "handlers.cli.main", "worker", "--pool", pool)
    await until(stores, ref, pool)
    taken = (time.monotonic() - begun) * 1000
    await end(process)
    return taken


async def parts(settings: Settings, stores: Stores, pool: str) -> dict[str, float]:
    """Return milliseconds by part."""
    ref = await prepare(settings, stores, pool)
    begun = time.monotonic()
    process = start(str(PARTS), pool, COLD_BEGUN=repr(begun))
    await until(stores, ref, pool)
    over = time.monotonic()
    marks = json.loads(await end(process))
    laps = {name: (at - before) * 1000 for (name, at), (_, before) in zip(marks[1:], marks[:-1], strict=True)}
    return {**laps, "first result": (over - marks[-1][1]) * 1000}


async def measure(settings: Settings, repeats: int) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    with Progress() as bar:
        task = bar.add_task("cold starts", total=len(POOLS) * (repeats + 1))
        async with connect(settings) as stores:
            for turn in range(repeats + 1):
                for pool in POOLS:
                    laps = {**await parts(settings, stores, pool), "total": await total(settings, stores, pool)}
                    bar.advance(task)
                    if turn:  # the first one fills the page cache and compiles
                        for name, taken in laps.items():
                            found.setdefault(pool, {}).setdefault(name, []).append(taken)
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    lines = ["| pool | part | ms, median | least |", "|---|---|---|---|"]
    for pool, laps in found.items():
        floor = sum(statistics.median(laps[name]) for name in FLOOR[pool])
        lines += [
            f"| {pool} | {name} | {statistics.median(taken):.0f} | {min(taken):.0f} |"
            for name, taken in laps.items()
            if name != "total"
        ]
        lines.append(f"| {pool} | floor: {', '.join(FLOOR[pool])} | {floor:.0f} | |")
        lines.append(
            f"| {pool} | **exec to first result** | {statistics.median(laps['total']):.0f} | {min(laps['total']):.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="measured starts of each kind")
    parser.add_argument("--json", action="store_true", help="print every measurement")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats: must be at least 1")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with servers() as settings:
        found = asyncio.run(measure(settings, arguments.repeats))
    print(json.dumps(found) if arguments.json else table(found))


if __name__ == "__main__":
    main()

"""What a turn pays to find where its session stands, by how it looks: CPU of this process and latency, in milliseconds.

python -m benchmarks.session_cache [--versions 10,1000,3000] [--turns 200]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from scaling.stack import Stack
from tasks.access.seals import AgentSeals
from tasks.access.sources import load_keys
from tasks.contracts.base import utc_now
from tasks.contracts.result import Result, Status, Timings
from tasks.contracts.session import SessionVersion
from tasks.contracts.words import new_id
from tasks.settings import Settings
from tasks.settings_load import load
from tasks.stores.connect import Stores, connect
from tasks.stores.session_cache import Remembered, SessionCache
from tasks.stores.sessions import SessionStore

TENANT = "bench"


def version(session: str, number: int, *, messages: int) -> SessionVersion:
    """A version with ``messages`` messages of 1,000 characters, as 20 make the largest but one that is kept."""
    said = [{"type": "UserMessage", "content": f"{new_id()} " * 27, "source": "user"} for _ in range(messages)]
    result = Result(
        request_id=new_id(),
        tenant=TENANT,
        status=Status.SUCCEEDED,
        output="done",
        timings=Timings(accepted_at=utc_now(), finished_at=utc_now()),
        request_digest="0" * 64,
        attempt=new_id(),
    )
    state = {"type": "AssistantAgentState", "version": "1.0.0", "llm_context": {"messages": said}}
    return SessionVersion(
        tenant=TENANT, session_id=session, version=number, saved_at=utc_now(), state=state, result=result
    )


async def measure(look: Callable[[], Awaitable[Any]], turns: int) -> dict[str, float]:
    for _ in range(10):
        await look()
    times, cpu = [], time.process_time()
    for _ in range(turns):
        begun = time.perf_counter()
        await look()
        times.append((time.perf_counter() - begun) * 1000)
    return {
        "cpu_ms": round((time.process_time() - cpu) * 1000 / turns, 3),
        "median_ms": round(statistics.median(times), 3),
    }


async def one(stores: Stores, settings: Settings, count: int, turns: int) -> None:
    session = f"s{count}"
    seals = AgentSeals(load_keys(settings), "agents.responder")
    cache = SessionCache(stores.link, seconds=600, seals=seals)
    sessions = SessionStore(stores.data, cache)
    for first in range(1, count, 64):
        last = min(first + 64, count)
        await asyncio.gather(*(sessions.create(version(session, n, messages=0)) for n in range(first, last)))
    newest = version(session, count, messages=20)
    await sessions.create(newest)
    await sessions.keep(newest)

    async def cached() -> None:
        assert (await sessions.latest(TENANT, session, hint=await sessions.remembered(TENANT, session))) == newest

    async def hinted() -> None:
        hint = await sessions.remembered(TENANT, session)
        assert hint
        assert (await sessions.latest(TENANT, session, hint=Remembered(hint.number))) == newest

    async def listed() -> None:
        assert (await sessions.latest(TENANT, session)) == newest

    async def kept() -> None:
        await stores.link.call("DEL", "{sluice}:session_cache:bench/" + session)
        await sessions.keep(newest)

    async def deleted() -> None:
        await stores.link.call("DEL", "{sluice}:nothing")

    ways = {
        "the cached version": cached,
        "only its number": hinted,
        "a listing": listed,
        "(keep)": kept,
        "(DEL)": deleted,
    }
    for name, way in ways.items():
        figures = await measure(way, turns if way is not listed or count <= 100 else max(turns // 10, 20))
        print(json.dumps({"versions": count, "bytes": len(newest.to_bytes()), "by": name, **figures}))


async def run(versions: list[int], turns: int) -> None:
    settings = load()
    async with connect(settings) as stores:
        for count in versions:
            await one(stores, settings, count, turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", default="10,1000,3000")
    parser.add_argument("--turns", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), Settings())
        try:
            os.environ |= stack.start_servers(lambda line: None, model=False)
            asyncio.run(run([int(count) for count in asked.versions.split(",")], asked.turns))
        finally:
            stack.down(purge=True, tell=lambda line: None)


if __name__ == "__main__":
    main()

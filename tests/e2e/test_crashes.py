"""A worker dies between any two steps: still exactly one result, a complete audit, no session turn twice."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from handlers.producer import AsyncProducer
from tasks import keys
from tasks.settings import Settings
from tasks.stores.connect import connect
from tests.e2e.conftest import HERE, Fleet
from tests.support.evidence import Evidence, gather

RESPONDER = keys.agent_pool("responder")
STEPS = [
    *[(keys.INTENT_POOL, step) for step in ("pop", "routed", "hand_over")],
    *[(RESPONDER, step) for step in ("pop", "begin", "audit", "session", "result", "notify", "clear")],
]


async def crash_each(settings: Settings, fleet: Fleet, tmp_path: Path, pool: str, step: str, count: int) -> Evidence:
    """Submit ``count`` requests whose worker dies once for each of them at ``step``; return what the buckets hold."""
    tenant = f"crash-{step}-{pool.replace('.', '-')}-{int(time.time() * 1000)}"
    markers = tmp_path / "markers"
    markers.mkdir()
    fleet.sweeper()
    other = keys.INTENT_POOL if pool == RESPONDER else RESPONDER
    fleet.worker(other)
    crashing = [pool, step, str(markers)]
    # One request at a time: each dies its own death, and no other's.
    one = {"SLUICE_SCALING__DEFAULT": '{"concurrency": 1}'}
    victim = fleet.start(*crashing, script=HERE / "crashing_worker.py", **one)
    async with AsyncProducer(settings, tenant=tenant) as producer:
        ids = await producer.submit_many(
            {"id": f"r{n}", "text": f"How deep is lake number {n}?", "session_id": f"s{n}", "intent": "answer_question"}
            for n in range(count)
        )
        done = asyncio.create_task(anext_all(producer, ids))
        while not done.done():
            if victim.poll() is not None:
                victim = fleet.start(*crashing, script=HERE / "crashing_worker.py", **one)
            await asyncio.sleep(0.05)
        await done
    assert {marker.name for marker in markers.iterdir()} == set(ids), "not every request had its crash"
    async with connect(settings) as stores:
        assert await stores.register.are_open([keys.ref(tenant, request_id) for request_id in ids]) == [False] * count
    return await gather(settings, tenant)


async def anext_all(producer: AsyncProducer, ids: list[str]) -> None:
    """Wait for all results."""
    async for _ in producer.results(ids, 60 + 10 * len(ids)):
        pass


def check(evidence: Evidence, count: int) -> None:
    """Exactly one result, one session version, and a whole audit for each request."""
    ids = [f"r{n}" for n in range(count)]
    evidence.assert_whole(ids, overridden=True)
    assert len(evidence.sessions) == count, "a session turn was taken twice"
    for request_id in ids:
        assert evidence.result(request_id).status == "succeeded"


@pytest.mark.parametrize(("pool", "step"), STEPS)
async def test_one_result_after_a_crash(settings: Settings, fleet: Fleet, tmp_path: Path, pool: str, step: str) -> None:
    try:
        evidence = await crash_each(settings, fleet, tmp_path, pool, step, count=2)
    except Exception:
        print(fleet.logs())
        raise
    check(evidence, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("pool", "step"), STEPS)
async def test_one_result_after_each_of_twenty_crashes(
    settings: Settings, fleet: Fleet, tmp_path: Path, pool: str, step: str
) -> None:
    check(await crash_each(settings, fleet, tmp_path, pool, step, count=20), 20)

"""Workers and sealers, killed at random: every result has its records, the ledger verifies, and nothing forked."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.producer import AsyncProducer
from tasks import keys
from tasks.access.sources import load_keys
from tasks.audit.verify import Options, verify
from tasks.scheduled import open_sealer
from tasks.settings import Settings
from tasks.settings_load import load
from tasks.stores.s3 import audit_store
from tests.e2e.conftest import Fleet
from tests.support.evidence import gather

RESPONDER = keys.agent_pool("responder")
SEALERS = 3


class Crowd:
    """Processes of which one is killed now and then, and started again."""

    def __init__(self, start: list[Callable[[], subprocess.Popen[bytes]]], rng: random.Random) -> None:
        self._start = start
        self._rng = rng
        self._running = [begin() for begin in start]
        self.killed = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(0.5, 3))
            place = self._rng.randrange(len(self._running))
            self._running[place].send_signal(signal.SIGKILL)
            self._running[place].wait()
            self.killed += 1
            self._running[place] = self._start[place]()


async def crowded(fleet: Fleet, settings: Settings, tenant: str, count: int, workers: int) -> int:
    """Let ``count`` requests through ``workers`` processes and three sealers; return how many were killed."""
    half = [lambda: fleet.worker(keys.INTENT_POOL), lambda: fleet.worker(RESPONDER)]
    starts = [*half * (workers // 2), *[lambda: fleet.start("seal", "--every")] * SEALERS]
    crowd = Crowd(starts, random.Random(5))
    fleet.sweeper()
    async with AsyncProducer(settings, tenant=tenant) as producer:
        ids = await producer.submit_many(
            {"id": f"r{n}", "text": f"How deep is lake number {n}?", "intent": "answer_question"} for n in range(count)
        )
        killing = asyncio.create_task(crowd.run())
        async for _ in producer.results(ids, 120 + count / 10):
            pass
        killing.cancel()
    return crowd.killed


async def check(settings: Settings, tenant: str, count: int) -> None:
    async with open_sealer(settings) as sealer:
        await asyncio.sleep(1)
        await sealer.run_once(force=True)
    report = await verify(audit_store(settings), load_keys(settings).ring, Options())
    assert report.faults == []
    assert report.checkpoints > 3
    evidence = await gather(settings, tenant)
    evidence.assert_whole([f"r{n}" for n in range(count)], overridden=True)


@pytest.mark.parametrize(
    ("count", "workers"),
    [
        pytest.param(300, 4, id="few"),
        pytest.param(20_000, 8, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
async def test_workers_and_sealers_that_are_killed_leave_a_ledger_that_verifies(
    fleet: Fleet, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, workers: int
) -> None:
    monkeypatch.setenv("SLUICE_AUDITING__SEAL_SECONDS", "1")
    monkeypatch.setenv("SLUICE_QUEUE__ATTEMPTS", "50")
    assert os.environ["SLUICE_HOME"].startswith(str(tmp_path))
    tenant = f"ledger-{count}-{int(time.time())}"
    try:
        killed = await crowded(fleet, load(), tenant, count, workers)
        assert killed
        await check(load(), tenant, count)
    except BaseException:
        print(fleet.logs()[-20_000:])
        raise

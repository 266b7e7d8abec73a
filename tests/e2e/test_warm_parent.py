"""The autoscaler with a warm parent: its workers serve and drain as others do, and nothing depends on it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from handlers.producer import AsyncProducer
from scaling.local import autoscale, pool_of
from scaling.processes import Processes, Spawned
from scaling.warm import PARENT
from tasks import keys
from tasks.contracts.result import Status
from tasks.settings import Settings
from tasks.settings_load import home, load
from tasks.stores.broker import Depth
from tasks.stores.connect import connect

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the warm parent needs Linux")

RESPONDER = keys.agent_pool("responder")
SECONDS = 60.0


@pytest.fixture
def warm(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a warm parent, and a model that is slow."""
    monkeypatch.setenv("SLUICE_SCALING__WARM_PARENT", "true")
    monkeypatch.setenv("SLUICE_SCALING__POLLING_SECONDS", "0.2")
    monkeypatch.setenv("SLUICE_SCALING__COOLDOWN_SECONDS", str(10 * SECONDS))
    monkeypatch.setenv("SLUICE_MODELS", json.dumps({"slow": {"provider": "canned", "delay_seconds": 2}}))
    return load()


async def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


class Scaled:
    """An autoscaler that runs, and its processes."""

    def __init__(self) -> None:
        self.processes = Processes(home().absolute())

    @property
    def workers(self) -> dict[str, Spawned]:
        """Return the workers by pool."""
        return {pool: spawned for spawned in self.processes.all() if (pool := pool_of(spawned))}

    def parent(self) -> Spawned:
        found = self.processes.find(PARENT)
        assert found
        return found

    def log(self) -> str:
        return "".join(log.read_text() for log in self.processes.log("x").parent.glob("worker-*.log"))

    def ready(self) -> bool:
        log = self.processes.log(PARENT)
        return log.exists() and "warm parent ready" in log.read_text()

    async def gone(self, spawned: Spawned) -> None:
        spawned.send(signal.SIGTERM)
        await until(lambda: not spawned.is_alive())


@asynccontextmanager
async def scaled(settings: Settings) -> AsyncIterator[Scaled]:
    made = Scaled()
    running = asyncio.create_task(autoscale(settings, made.processes))
    try:
        await until(made.ready)
        yield made
    finally:
        running.cancel()
        await asyncio.wait([running])
        made.processes.stop(made.processes.all(), grace=10)
        assert made.processes.all() == []


async def ask(producer: AsyncProducer, text: str = "What is a queue?", **fields: str) -> str:
    return await producer.submit(text, **{"intent": "answer_question", **fields})


async def running(settings: Settings, count: int) -> None:
    """Wait until so many requests run."""
    async with connect(settings) as stores:
        end = time.monotonic() + SECONDS
        while (await stores.broker.depths([RESPONDER]))[RESPONDER] != Depth(waiting=0, running=count):
            assert time.monotonic() < end
            await asyncio.sleep(0.02)


async def test_both_hops_start_by_the_bell_from_the_parent_drain_and_leave_no_zombie(
    warm: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_SCALING__POLLING_SECONDS", str(10 * SECONDS))
    settings = load()
    async with scaled(settings) as stack, AsyncProducer(settings, tenant=f"warm-{time.time_ns()}") as producer:
        parent = psutil.Process(stack.parent().pid)
        assert (await producer.result(await ask(producer), SECONDS)).status is Status.SUCCEEDED
        workers = stack.workers
        assert set(workers) == {keys.INTENT_POOL, RESPONDER}
        assert {psutil.Process(worker.pid).ppid() for worker in workers.values()} == {parent.pid}

        slow = await ask(producer, model="slow")
        await running(settings, 1)
        for worker in workers.values():
            await stack.gone(worker)
        assert (await producer.result(slow, 1)).status is Status.SUCCEEDED
        await until(lambda: parent.children() == [])
        assert parent.num_threads() == 1
        assert "Traceback" not in stack.log()


async def test_a_parent_that_is_killed_takes_nothing_with_it(warm: Settings) -> None:
    async with scaled(warm) as stack, AsyncProducer(warm, tenant=f"killed-{time.time_ns()}") as producer:
        ids = [await ask(producer, model="slow") for _ in range(5)]
        await running(warm, 5)
        workers = stack.workers
        stack.parent().send(signal.SIGKILL)
        results = [result async for result in producer.results(ids, SECONDS)]
        assert {result.status for result in results} == {Status.SUCCEEDED}
        assert stack.workers == workers

        for worker in workers.values():
            await stack.gone(worker)
        assert (await producer.result(await ask(producer), SECONDS)).status is Status.SUCCEEDED
        assert {psutil.Process(worker.pid).ppid() for worker in stack.workers.values()} == {os.getpid()}
        assert stack.processes.find(PARENT) is None


async def test_settings_are_read_when_a_worker_starts_and_what_is_wrong_stands_in_its_log(warm: Settings) -> None:
    file = Path(os.environ["SLUICE_CONFIG"])
    async with scaled(warm) as stack, AsyncProducer(warm, tenant=f"fresh-{time.time_ns()}") as producer:
        file.write_text("agents: [")
        request = await ask(producer)
        await until(lambda: "not valid YAML" in stack.log())
        file.write_text("log_level: DEBUG")
        assert (await producer.result(request, SECONDS)).status is Status.SUCCEEDED
        parent = stack.parent().pid
        assert {psutil.Process(worker.pid).ppid() for worker in stack.workers.values()} == {parent}

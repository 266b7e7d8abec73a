"""Plans of six steps, workers killed at random between any two steps: each plan ends in exactly one result."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from handlers.producer import AsyncProducer
from tasks import keys
from tasks.contracts.base import sha256
from tasks.contracts.result import Result, Status
from tasks.settings import Settings
from tasks.settings_load import load
from tasks.stores.connect import connect
from tests.e2e.conftest import HERE, Fleet
from tests.support.evidence import gather
from tests.support.receiver import Receiver, receiving

POOLS = [keys.INTENT_POOL, *(keys.agent_pool(name) for name in ("planner", "executor", "responder"))]
CHANCE = "0.05"
TEXT = (
    "Do this: 1. Run SELECT COUNT(*) FROM customers 2. Name the capital of Peru. 3. Send POST {url}/pay?for={name} now "
    "4. Run SELECT MAX(price) FROM products 5. Then say what the result means. 6. Finally sum up all of them."
)
"""Steps 1 to 4 need nothing, 5 needs 4, 6 needs all before."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture
def planning(settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings under which an agent may post to the receiver, and may die often."""
    monkeypatch.setenv(
        "SLUICE_TOOLS__API_CALLER__ALLOWED_HOSTS", orjson.dumps(["localhost", f"127.0.0.1:{receiver.port}"]).decode()
    )
    monkeypatch.setenv("SLUICE_TOOLS__API_CALLER__ALLOWED_METHODS", '["GET", "POST"]')
    monkeypatch.setenv("SLUICE_QUEUE__ATTEMPTS", "20")
    return load()


class Undertaker:
    """Keeps ``count`` workers alive that kill themselves now and then."""

    def __init__(self, fleet: Fleet, deaths: Path, count: int) -> None:
        deaths.mkdir()
        self.deaths = deaths
        self._fleet = fleet
        self._workers = [self._start() for _ in range(count)]

    def _start(self) -> object:
        return self._fleet.start(CHANCE, str(self.deaths), *POOLS, script=HERE / "crashing_steps.py")

    async def tend(self) -> None:
        while True:
            for place, worker in enumerate(self._workers):
                if worker.poll() is not None:  # type: ignore[attr-defined]
                    self._workers[place] = self._start()
            await asyncio.sleep(0.05)


async def run_plans(
    settings: Settings, fleet: Fleet, receiver: Receiver, tmp_path: Path, count: int, at_once: int
) -> None:
    """Run ``count`` plans while workers die; check what the buckets hold of each, and what was posted."""
    tenant = f"plans-{int(time.time() * 1000)}"
    fleet.sweeper()
    undertaker = Undertaker(fleet, tmp_path / "deaths", count=2)
    tending = asyncio.create_task(undertaker.tend())
    ids: list[str] = []
    try:
        async with AsyncProducer(settings, tenant=tenant) as producer:
            for first in range(0, count, at_once):
                batch = await producer.submit_many(
                    {"id": f"p{n}", "text": TEXT.format(url=receiver.url, name=f"p{n}"), "intent": "plan_task"}
                    for n in range(first, min(first + at_once, count))
                )
                async for _ in producer.results(batch, 240):
                    pass
                ids += batch
        await _until_empty(settings, tenant, ids)
    finally:
        tending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tending
    assert list(undertaker.deaths.iterdir()), "nobody died"
    await check(settings, tenant, ids, receiver)


async def _until_empty(settings: Settings, tenant: str, ids: list[str]) -> None:
    """Wait until the register has neither the requests nor their steps."""
    refs = [keys.ref(tenant, name, 1, step) for name in ids for step in (None, *(f"s{n}" for n in range(1, 7)))]
    async with connect(settings) as stores, asyncio.timeout(60):
        while any(await stores.register.are_open(refs)):
            await asyncio.sleep(0.1)


async def check(settings: Settings, tenant: str, ids: list[str], receiver: Receiver) -> None:
    """One result of each plan, at most one of each step, all on record; each post at most once."""
    evidence = await gather(settings, tenant)
    assert not evidence.faults
    assert len(evidence.results) == len(ids)
    async with connect(settings) as stores:
        for name in ids:
            result = evidence.result(name)
            named = {record.details.get("sha256") for record in evidence.records[name]}
            assert sha256(result.to_bytes()) in named
            assert [step.name for step in result.steps] == [f"s{n}" for n in range(1, 7)]
            for step in result.steps:
                found = await stores.results.get(tenant, name, 1, step.name)
                # What still ran when the plan failed may have ended since.
                assert step.status in {found.status if found else None, None}
            assert_ended_well(result)
    assert set(receiver.seen.values()) == {1}, "a call that is not idempotent was made twice"
    succeeded = sum(evidence.result(name).status is Status.SUCCEEDED for name in ids)
    assert succeeded <= len(receiver.done) <= len(ids)


def assert_ended_well(result: Result) -> None:
    """A plan succeeds with every step done, or fails by the call of which nobody knows whether it was made."""
    if result.status is Status.SUCCEEDED:
        assert all(step.ok for step in result.steps)
        assert [step.steps[0].name for step in result.steps if step.steps] == ["sql_parser", "api_caller", "sql_parser"]
        return
    [failed] = [step for step in result.steps if step.status is Status.FAILED]
    assert (result.status, failed.name) == (Status.FAILED, "s3"), result


async def test_plans_survive_their_workers(
    planning: Settings, fleet: Fleet, receiver: Receiver, tmp_path: Path
) -> None:
    try:
        await run_plans(planning, fleet, receiver, tmp_path, count=4, at_once=2)
    except BaseException:
        print(fleet.logs())
        raise


@pytest.mark.slow
async def test_fifty_plans_survive_their_workers(
    planning: Settings, fleet: Fleet, receiver: Receiver, tmp_path: Path
) -> None:
    try:
        await run_plans(planning, fleet, receiver, tmp_path, count=50, at_once=5)
    except BaseException:
        print(fleet.logs())
        raise

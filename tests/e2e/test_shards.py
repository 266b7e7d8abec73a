"""Two shards of the responder, each with real workers: traffic moves to where it is answered, and wakes who sleeps."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest

from handlers.cli.status import look
from handlers.producer import AsyncProducer
from scaling.local import autoscale
from scaling.processes import Processes
from tasks import keys
from tasks.contracts.audit import Action
from tasks.contracts.result import Status
from tasks.contracts.weights import ShardState, Weights
from tasks.settings import Settings
from tasks.settings_load import load
from tasks.stores.connect import Stores, connect
from tasks.stores.weights import WeightStore
from tests.e2e.conftest import Fleet
from tests.support.evidence import gather

EU, US = "agents.responder@eu", "agents.responder@us"


@pytest.fixture
def sharded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with two shards of the responder, on an empty Redis."""
    pools = {"agents.responder": {"concurrency": 2, "shards": {"eu": {}, "us": {}}}}
    monkeypatch.setenv("SLUICE_SCALING__POOLS", json.dumps(pools))
    monkeypatch.setenv("SLUICE_SCALING__COLD_START_SECONDS", "1")
    monkeypatch.setenv("SLUICE_SCALING__COOLDOWN_SECONDS", "2")
    monkeypatch.setenv("SLUICE_SCALING__POLLING_SECONDS", "0.2")
    return load()


async def ask(producer: AsyncProducer, count: int) -> list[str]:
    """Submit questions that nobody has to classify."""
    text = "What is a sluice? A sluice is a gate that lets water through when there is water."
    return await producer.submit_many([{"text": text, "intent": "answer_question"}] * count)


async def answered(producer: AsyncProducer, ids: list[str]) -> None:
    found = [result async for result in producer.results(ids, 120)]
    assert {result.request_id for result in found} == set(ids)
    assert {result.status for result in found} == {Status.SUCCEEDED}


async def shards_of(settings: Settings, tenant: str, ids: list[str]) -> list[str]:
    """Return which shard each request was sent to."""
    found = await gather(settings, tenant)
    routed = (Action.INTENT_ROUTED, Action.INTENT_OVERRIDE)
    return [next(r.resource for r in found.records[name] if r.action in routed) for name in ids]


async def weights_with(stores: Stores, **states: ShardState) -> Weights:
    """Wait until the shards have these states."""
    store, end, weights = WeightStore(stores.link), time.monotonic() + 60, None
    while time.monotonic() < end:
        weights = await store.read()
        if weights and all(weights.shards[f"agents.responder@{name}"].state is state for name, state in states.items()):
            return weights
        await asyncio.sleep(0.1)
    raise AssertionError(f"no such weights: {weights}")


@pytest.mark.slow
async def test_traffic_leaves_a_shard_whose_worker_stands_still_and_nothing_is_lost(
    sharded: Settings, fleet: Fleet
) -> None:
    tenant = f"shards-{time.time_ns()}"
    for pool in (keys.INTENT_POOL, EU):
        fleet.worker(pool)
    us = fleet.worker(US)
    fleet.sweeper()
    async with connect(sharded) as stores, AsyncProducer(sharded, tenant=tenant) as producer:
        weights = await weights_with(stores, eu=ShardState.SERVING, us=ShardState.SERVING)
        assert all(0 < shard.weight <= 1 and shard.load and shard.workers == 1 for shard in weights.shards.values())
        shown = {shard["shard"]: shard for shard in (await look(sharded))["shards"]}
        assert set(shown) == {EU, US}
        assert sum(shard["share"] for shard in shown.values()) == pytest.approx(1)
        first = await ask(producer, 30)
        await answered(producer, first)
        assert set(await shards_of(sharded, tenant, first)) == {EU, US}

        us.send_signal(signal.SIGSTOP)
        caught = await ask(producer, 20)
        await weights_with(stores, eu=ShardState.SERVING, us=ShardState.SILENT)
        await asyncio.sleep(2 * sharded.leases.heartbeat_seconds)  # until every worker has heard of it
        moved = await ask(producer, 20)
        await answered(producer, moved)
        assert set(await shards_of(sharded, tenant, moved)) == {EU}

        us.send_signal(signal.SIGCONT)
        await answered(producer, caught)
        await weights_with(stores, eu=ShardState.SERVING, us=ShardState.SERVING)
        assert US in await shards_of(sharded, tenant, caught)
    (await gather(sharded, tenant)).assert_whole([*first, *caught, *moved], overridden=True)


async def test_the_steps_of_a_plan_are_done_in_the_shards_and_joined(sharded: Settings, fleet: Fleet) -> None:
    tenant = f"planned-{time.time_ns()}"
    pools = (keys.INTENT_POOL, keys.agent_pool("planner"), EU, US)
    fleet.start("worker", *(word for pool in pools[:2] for word in ("--pool", pool)))
    for pool in pools[2:]:
        fleet.worker(pool)
    fleet.sweeper()
    text = " ".join(f"{number}. Name river number {number}." for number in range(1, 7)) + " 7. Finally sum up all."
    steps = [f"s{number}" for number in range(1, 8)]
    async with connect(sharded) as stores, AsyncProducer(sharded, tenant=tenant) as producer:
        await weights_with(stores, eu=ShardState.SERVING, us=ShardState.SERVING)
        ids = await producer.submit_many([{"text": text, "intent": "plan_task"}] * 3)
        found = [result async for result in producer.results(ids, 120)]
    assert {result.status for result in found} == {Status.SUCCEEDED}
    for result in found:
        assert [(step.name, step.status) for step in result.steps] == [(name, Status.SUCCEEDED) for name in steps]
    evidence = await gather(sharded, tenant)
    assert not evidence.faults
    assert len(evidence.results) == 3
    started = [r for name in ids for r in evidence.records[name] if r.action is Action.AGENT_STARTED]
    begun = [r for r in started if "step" in r.details]
    assert {(r.request_id, r.details["step"]) for r in begun} == {(name, step) for name in ids for step in steps}
    assert {next(pool for pool in (EU, US) if r.actor.startswith(f"{pool}@")) for r in begun} == {EU, US}


async def test_a_shard_at_zero_gets_work_and_is_woken(sharded: Settings, fleet: Fleet, tmp_path: Path) -> None:
    tenant = f"waking-{time.time_ns()}"
    fleet.worker(EU)
    processes = Processes(tmp_path / "scaled")
    scaling = asyncio.create_task(autoscale(sharded, processes))
    try:
        async with connect(sharded) as stores, AsyncProducer(sharded, tenant=tenant) as producer:
            await weights_with(stores, eu=ShardState.SERVING, us=ShardState.IDLE)
            ids = await ask(producer, 30)
            await answered(producer, ids)
            assert set(await shards_of(sharded, tenant, ids)) == {EU, US}
            seen = (await stores.board.pools())[US]
            assert seen["peak"] == 1
            await weights_with(stores, us=ShardState.IDLE)  # and sleeps again
            assert not [spawned for spawned in processes.all() if US in spawned.name]
    finally:
        scaling.cancel()
        await asyncio.gather(scaling, return_exceptions=True)
        processes.stop(processes.all(), grace=10)
    (await gather(sharded, tenant)).assert_whole(ids, overridden=True)

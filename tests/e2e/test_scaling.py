"""Scaling real processes to zero and back: no work is killed, none is stranded, and a worker told to stop lets go."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from handlers.producer import AsyncProducer
from scaling.kube.render import render, write
from scaling.kube.triggers import Broker
from scaling.processes import Processes
from tasks import keys
from tasks.contracts.result import Status
from tasks.settings import Settings
from tasks.settings_load import home, load
from tasks.stores.connect import Stores, connect
from tests.e2e.conftest import Fleet
from tests.support.evidence import gather
from tests.support.slow_model import SlowModel, slow_model, task
from tests.support.sqs import deploy, sqs_server

RESPONDER = keys.agent_pool("responder")
PIPELINE = {"agents": [{"type": "responder", "model": "slow"}]}


@pytest.fixture(scope="module")
def sqs() -> Iterator[str]:
    with sqs_server() as address:
        yield address


@pytest.fixture
def scaled(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings on the broker that the test names (Redis by default); workers are gone when the test is.

    Heartbeats leave a busy machine some seconds: what is shown here must not hang on leases that lapse.
    """
    monkeypatch.setenv("SLUICE_LEASES__HEARTBEAT_SECONDS", "1")
    if getattr(request, "param", "redis") == "sqs":
        address = request.getfixturevalue("sqs")
        url = deploy(address, f"d{time.time_ns()}", settings.pools, visibility=20, once=True)
        monkeypatch.setenv("SLUICE_BROKER_URL", url)
    try:
        yield load()
    finally:
        processes = Processes(home().absolute())
        processes.stop(processes.all(), grace=0)


on_each_broker = pytest.mark.parametrize("scaled", ["redis", "sqs"], indirect=True)
on_sqs_if_slow = pytest.mark.parametrize(
    "scaled", ["redis", pytest.param("sqs", marks=pytest.mark.slow)], indirect=True
)


def configure(model: SlowModel, **scaling: object) -> Settings:
    """Write ``pipeline.yaml``: the responder asks ``model``; return the settings."""
    models = {"slow": {"base_url": f"{model.url}/v1"}}
    Path(os.environ["SLUICE_CONFIG"]).write_text(json.dumps({**PIPELINE, "models": models, "scaling": scaling}))
    return load()


def manifests(settings: Settings, folder: Path, change: Callable[[dict[str, object]], None]) -> Path:
    """Write the manifests of ``settings``, each ScaledObject's ``spec`` after ``change``."""
    broker: Broker = "sqs" if settings.broker_url else "redis"
    files = render(settings, "{}\n", broker, tag="test")
    write(files, folder)
    for file in sorted((folder / "base").glob("*.yaml")):
        documents = list(yaml.safe_load_all(file.read_text()))
        for one in documents:
            if one["kind"] == "ScaledObject":
                change(one["spec"])
        file.write_text(yaml.safe_dump_all(documents))
    return folder


def in_a_hurry(spec: dict[str, object]) -> None:
    """Scale in at once, so that workers go that have work to do; to zero after three seconds."""
    at_once = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 1}]}
    spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"] = at_once  # type: ignore[index]
    spec["cooldownPeriod"] = 3


def by_queue_length(spec: dict[str, object]) -> None:
    """Count what waits, as many do, and not what runs."""
    spec["advanced"]["scalingModifiers"]["formula"] = "waiting_high + waiting"  # type: ignore[index]
    spec["cooldownPeriod"] = 2


async def until_workers(stores: Stores, pool: str, wanted: Callable[[int], bool], seconds: float = 90) -> None:
    """Wait until the autoscaler counts so many worker processes of ``pool``."""
    async with asyncio.timeout(seconds):
        while not wanted((await stores.board.pools()).get(pool, {}).get("workers", 0)):
            await asyncio.sleep(0.1)


async def wave(settings: Settings, stores: Stores, model: SlowModel, tenant: str, count: int, slowest: float) -> None:
    """Run ``count`` tasks from an empty pool to an empty pool, and see it at its maximum in between."""
    chance = random.Random(count)
    most = settings.pool(RESPONDER).max_workers
    async with AsyncProducer(settings, tenant=tenant) as producer:
        at_most = asyncio.create_task(until_workers(stores, RESPONDER, lambda workers: workers >= most))
        ids = await producer.submit_many(
            task(f"{tenant}-{number}", round(chance.uniform(slowest / 20, slowest), 2)) for number in range(count)
        )
        found = [result.status async for result in producer.results(ids, 120 + count * slowest)]
        assert found == [Status.SUCCEEDED] * count
        await at_most
    for pool in settings.pools:
        await until_workers(stores, pool, lambda workers: workers == 0)
    assert {name: model.calls[name] for name in ids} == dict.fromkeys(ids, 1), "a task ran twice"
    assert all(len(model.ended[name]) == 1 for name in ids), "a task was killed"


async def go_and_come_back(
    fleet: Fleet, tmp_path: Path, *, waves: int, count: int, slowest: float, workers: int
) -> None:
    pool = {"max_workers": workers, "concurrency": 4, "requests_per_worker": 4}
    async with slow_model() as model:
        settings = configure(model, polling_seconds=0.5, pools={RESPONDER: pool})
        fleet.sweeper()
        scaler = fleet.start("autoscale", "--manifests", str(manifests(settings, tmp_path / "k8s", in_a_hurry)))
        async with connect(settings) as stores:
            for number in range(waves):
                tenant = f"wave{number}-{time.time_ns()}"
                await wave(settings, stores, model, tenant, count, slowest)
                evidence = await gather(settings, tenant)
                assert not evidence.faults
                actions = [action for records in evidence.records.values() for action in [r.action for r in records]]
                assert actions.count("agent.started") == count  # type: ignore[comparison-overlap]
                assert "request.reenqueued" not in actions
            assert {depth.total for depth in (await stores.broker.depths(settings.pools)).values()} == {0}
            assert await stores.broker.length(keys.DEAD_LETTERS) == 0, "SQS delivered a message twice"
        assert scaler.poll() is None
    lines = fleet.logs().splitlines()
    assert not [line for line in lines if "restored" in line or "killing it" in line]
    told = [json.loads(line) for line in lines if '"event":"scaling"' in line.replace('": "', '":"')]
    busy = [one for one in told if one["pool"] == RESPONDER and 0 < one["to"] < one["workers"] and one["running"]]
    assert busy, "no worker had to go while there was work"


@on_sqs_if_slow
async def test_a_pool_goes_to_its_maximum_and_back_and_no_work_is_killed(
    scaled: Settings, fleet: Fleet, tmp_path: Path
) -> None:
    await go_and_come_back(fleet, tmp_path, waves=1, count=20, slowest=4, workers=3)


@pytest.mark.slow
@on_each_broker
async def test_three_times_to_the_maximum_and_back_with_tasks_of_up_to_twenty_seconds(
    scaled: Settings, fleet: Fleet, tmp_path: Path
) -> None:
    await go_and_come_back(fleet, tmp_path, waves=3, count=100, slowest=20, workers=4)


@on_each_broker
async def test_one_high_request_wakes_an_empty_pool(scaled: Settings, fleet: Fleet) -> None:
    async with slow_model() as model:
        settings = configure(model, polling_seconds=0.5, cooldown_seconds=2)
        fleet.start("autoscale")
        async with connect(settings) as stores, AsyncProducer(settings, tenant=f"high-{time.time_ns()}") as producer:
            await producer.submit_many([task("high", 0.1, priority="high")])
            assert (await producer.result("high", 60)).status is Status.SUCCEEDED
            await until_workers(stores, RESPONDER, lambda workers: workers == 0)
        assert model.calls == {"high": 1}


async def test_a_task_whose_worker_was_killed_brings_an_empty_pool_back(
    scaled: Settings, fleet: Fleet, tmp_path: Path
) -> None:
    """Nobody sweeps here: it is the scaler alone that has to see what no queue shows."""
    async with slow_model() as model:
        settings = configure(model, polling_seconds=0.5, cooldown_seconds=2)
        intent, responder = fleet.worker(keys.INTENT_POOL), fleet.worker(RESPONDER)
        async with connect(settings) as stores, AsyncProducer(settings, tenant=f"strand-{time.time_ns()}") as producer:
            await producer.submit_many([task("stranded", 60)])
            await model.until_begun(1)
            responder.kill()
            intent.terminate()
            await asyncio.gather(asyncio.to_thread(responder.wait), asyncio.to_thread(intent.wait))
            depth = (await stores.broker.depths([RESPONDER]))[RESPONDER]
            assert (depth.waiting, depth.running) == (0, 1)

            blind = fleet.start("autoscale", "--manifests", str(manifests(settings, tmp_path / "k8s", by_queue_length)))
            await asyncio.sleep(settings.queue.visibility_seconds + 3)
            assert (await stores.board.pools())[RESPONDER]["peak"] == 0
            blind.terminate()
            await asyncio.to_thread(blind.wait)

            fleet.start("autoscale")
            assert (await producer.result("stranded", 60)).status is Status.SUCCEEDED
            await until_workers(stores, RESPONDER, lambda workers: workers == 0)
        assert model.calls == {"stranded": 2}


async def test_an_autoscaler_is_alone_and_one_that_was_killed_finds_its_workers_again(
    scaled: Settings, fleet: Fleet
) -> None:
    async with slow_model() as model:
        settings = configure(model, polling_seconds=0.5, cooldown_seconds=2)
        first = fleet.start("autoscale")
        async with connect(settings) as stores, AsyncProducer(settings, tenant=f"found-{time.time_ns()}") as producer:
            await producer.submit_many([task("long", 12)])
            await model.until_begun(1)
            second = fleet.start("autoscale")
            assert await asyncio.to_thread(second.wait, 30) == 1
            assert f"an autoscaler runs already for {home().absolute()} (pid {first.pid})" in fleet.logs()

            mine = {one.name for one in Processes(home().absolute()).all() if RESPONDER in one.name}
            first.kill()
            await asyncio.to_thread(first.wait)
            fleet.start("autoscale")
            assert (await producer.result("long", 60)).status is Status.SUCCEEDED
            assert {one.name for one in Processes(home().absolute()).all() if RESPONDER in one.name} == mine
            await until_workers(stores, RESPONDER, lambda workers: workers == 0)
        assert model.calls == {"long": 1}


async def run_until_told(
    fleet: Fleet, settings: Settings, model: SlowModel, producer: AsyncProducer, tasks: list[dict[str, object]]
) -> tuple[list[str], subprocess.Popen[bytes]]:
    """Run ``tasks``, all at once, in one worker; return their ids and the worker, which was just told to stop."""
    fleet.worker(keys.INTENT_POOL)
    fleet.sweeper()
    worker = fleet.worker(RESPONDER)
    ids = await producer.submit_many(tasks)
    await model.until_begun(len(tasks))
    worker.send_signal(signal.SIGTERM)
    return ids, worker


@pytest.mark.parametrize(
    ("scaled", "count"), [("redis", 200), pytest.param("sqs", 40, marks=pytest.mark.slow)], indirect=["scaled"]
)
async def test_what_runs_is_finished_or_handed_back_in_the_grace_period(
    scaled: Settings, fleet: Fleet, count: int
) -> None:
    tenant, grace = f"drain-{time.time_ns()}", 16.0
    brief, long = ([f"{kind}-{number}" for number in range(count // 2)] for kind in ("brief", "long"))
    async with slow_model() as model:
        pool = {"concurrency": 256, "requests_per_worker": 256}
        settings = configure(model, grace_seconds=grace, pools={RESPONDER: pool})
        async with AsyncProducer(settings, tenant=tenant) as producer:
            tasks = [task(name, 59) for name in (*brief, *long)]
            ids, worker = await run_until_told(fleet, settings, model, producer, tasks)
            told = time.monotonic()
            fleet.worker(RESPONDER)
            await asyncio.sleep(1)
            model.let_go(brief)
            assert await asyncio.to_thread(worker.wait, 60) == 0
            assert time.monotonic() - told < grace + 5
            ended = asyncio.get_running_loop().time()
            found = [result.status async for result in producer.results(ids, 60)]
        assert found == [Status.SUCCEEDED] * count
        assert model.calls == {**dict.fromkeys(brief, 1), **dict.fromkeys(long, 2)}
    evidence = await gather(settings, tenant)
    evidence.assert_whole(ids, overridden=True)
    if settings.broker_url:
        return  # moto is too slow on a busy machine to say anything of seconds
    assert min(model.begun[name][1] for name in long) - ended < 2, "the next worker goes on at once"
    assert not [name for name in ids if "request.reenqueued" in evidence.actions(name)], "not handed back in time"


@on_sqs_if_slow
async def test_what_was_finished_while_draining_is_not_redelivered_after_a_kill(scaled: Settings, fleet: Fleet) -> None:
    tenant = f"kill-{time.time_ns()}"
    async with slow_model() as model:
        settings = configure(model, default={"concurrency": 32})
        async with connect(settings) as stores, AsyncProducer(settings, tenant=tenant) as producer:
            brief, long = [task(f"brief-{number}", 3) for number in range(10)], [task("long", 59)]
            ids, worker = await run_until_told(fleet, settings, model, producer, [*brief, *long])
            done = [result.status async for result in producer.results(ids[:10], 60)]
            assert done == [Status.SUCCEEDED] * 10
            async with asyncio.timeout(5):
                while (await stores.broker.depths([RESPONDER]))[RESPONDER].total > 1:
                    await asyncio.sleep(0.05)
            worker.kill()
            await asyncio.to_thread(worker.wait)
            fleet.worker(RESPONDER)
            assert (await producer.result("long", 60)).status is Status.SUCCEEDED
        assert model.calls == {**{f"brief-{number}": 1 for number in range(10)}, "long": 2}
    evidence = await gather(settings, tenant)
    again = [name for name in ids if "request.reenqueued" in evidence.actions(name)]
    assert again == ["long"]


async def test_a_worker_touches_its_file_while_it_lives_and_not_when_it_hangs(
    scaled: Settings, fleet: Fleet, tmp_path: Path
) -> None:
    """What the liveness probe of the manifests looks at."""
    alive = tmp_path / "alive"
    worker = fleet.worker(RESPONDER, SLUICE_LEASES__ALIVE_FILE=str(alive))

    async def touched_after(moment: float) -> float:
        async with asyncio.timeout(30):
            while not alive.exists() or alive.stat().st_mtime <= moment:
                await asyncio.sleep(0.05)
        return alive.stat().st_mtime

    await touched_after(await touched_after(0))
    worker.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.2)
    last = alive.stat().st_mtime
    await asyncio.sleep(4 * scaled.leases.heartbeat_seconds)
    assert alive.stat().st_mtime == last
    worker.send_signal(signal.SIGCONT)
    await touched_after(last)

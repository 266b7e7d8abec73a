"""Callbacks over real sockets: a receiver that fails twice and then takes them, and workers that are killed."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from handlers.cli.main import cli
from handlers.producer import AsyncProducer
from tasks import keys
from tasks.settings import Settings
from tasks.settings_load import load
from tasks.stores.connect import connect
from tests.e2e.conftest import HERE, Fleet
from tests.support.evidence import gather
from tests.support.receiver import Receiver, receiving

RESPONDER = keys.agent_pool("responder")
COUNT = 3


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        made.refusals = 2
        yield made


@pytest.fixture
def calling(settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with which a receiver on this machine may be called, soon again where it fails."""
    monkeypatch.setenv("SLUICE_CALLBACKS__ALLOW_HTTP", "true")
    monkeypatch.setenv("SLUICE_CALLBACKS__PRIVATE_HOSTS", orjson.dumps([f"127.0.0.1:{receiver.port}"]).decode())
    monkeypatch.setenv("SLUICE_CALLBACKS__RETRY_SECONDS", "0.3")
    return load()


def check(receiver: Receiver, tenant: str, results: dict[str, bytes]) -> None:
    """Each was told at least until it was taken, always under one id, whole, and signed with its tenant's secret."""
    told = CliRunner().invoke(cli, ["keys", "callback-secret", "--tenant", tenant], standalone_mode=False)
    secret = base64.b64decode(told.output.strip().removeprefix("whsec_"))
    bodies: dict[str, set[bytes]] = {}
    for headers, body in receiver.hooks:
        bodies.setdefault(headers["webhook-id"], set()).add(body)
        said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        signed = base64.b64encode(hmac.new(secret, said, "sha256").digest()).decode()
        assert headers["webhook-signature"] == f"v1,{signed}"
    assert bodies == {f"{tenant}/{name}.r1": {body} for name, body in results.items()}
    assert all(receiver.seen[name] > receiver.refusals for name in bodies)


async def until_told(settings: Settings, receiver: Receiver, count: int, seconds: float = 60) -> None:
    """Wait until ``count`` were taken and the register has forgotten them."""
    async with connect(settings) as stores:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            taken = sum(seen > receiver.refusals for name, seen in receiver.seen.items())
            if taken == count and await stores.register.counts() == {"leased": 0, "delayed": 0}:
                return
            await asyncio.sleep(0.1)
    raise AssertionError(f"not told within {seconds} s: {receiver.seen}")


async def submit(producer: AsyncProducer, receiver: Receiver) -> list[str]:
    return await producer.submit_many(
        {
            "id": f"r{n}",
            "text": f"How deep is lake {n}?",
            "intent": "answer_question",
            "callback": f"{receiver.url}/hook",
        }
        for n in range(COUNT)
    )


async def test_a_receiver_that_fails_twice_is_told_under_one_id(
    calling: Settings, receiver: Receiver, fleet: Fleet
) -> None:
    tenant = f"callbacks-{int(time.time() * 1000)}"
    fleet.sweeper()
    for pool in (keys.INTENT_POOL, RESPONDER, keys.CALLBACK_POOL):
        fleet.worker(pool)
    async with AsyncProducer(calling, tenant=tenant) as producer:
        ids = await submit(producer, receiver)
        results = {result.request_id: result.to_bytes() async for result in producer.results(ids, 60)}
    try:
        await until_told(calling, receiver, COUNT)
    except AssertionError:
        print(fleet.logs())
        raise
    check(receiver, tenant, results)
    evidence = await gather(calling, tenant)
    assert not evidence.faults
    for name in ids:
        assert evidence.actions(name).count("callback.delivered") == 1


@pytest.mark.parametrize(
    ("pool", "step"),
    [
        (RESPONDER, "result"),
        pytest.param(RESPONDER, "callback", marks=pytest.mark.slow),
        pytest.param(RESPONDER, "clear", marks=pytest.mark.slow),
        pytest.param(keys.CALLBACK_POOL, "pop", marks=pytest.mark.slow),
        (keys.CALLBACK_POOL, "posted"),
        pytest.param(keys.CALLBACK_POOL, "told", marks=pytest.mark.slow),
    ],
)
async def test_a_process_is_killed_between_the_result_and_its_callback(
    calling: Settings, receiver: Receiver, fleet: Fleet, tmp_path: Path, pool: str, step: str
) -> None:
    tenant = f"killed-{step}-{int(time.time() * 1000)}"
    markers = tmp_path / "markers"
    markers.mkdir()
    receiver.refusals = 0
    fleet.sweeper()
    for other in {keys.INTENT_POOL, RESPONDER, keys.CALLBACK_POOL} - {pool}:
        fleet.worker(other)
    one = {"SLUICE_SCALING__DEFAULT": '{"concurrency": 1}'}
    crashing = [pool, step, str(markers)]
    victim = fleet.start(*crashing, script=HERE / "crashing_worker.py", **one)
    async with AsyncProducer(calling, tenant=tenant) as producer:
        ids = await submit(producer, receiver)
        done = asyncio.create_task(until_told(calling, receiver, COUNT, 90))
        while not done.done():
            if victim.poll() is not None:
                victim = fleet.start(*crashing, script=HERE / "crashing_worker.py", **one)
            await asyncio.sleep(0.05)
        try:
            await done
        except AssertionError:
            print(fleet.logs())
            raise
        results = {result.request_id: result.to_bytes() async for result in producer.results(ids, 30)}
    assert {marker.name for marker in markers.iterdir()} == set(ids), "not every request had its crash"
    check(receiver, tenant, results)
    assert all(json.loads(body)["status"] == "succeeded" for body in results.values())

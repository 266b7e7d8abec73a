"""The path of a request through real processes: versions, backlogs, kills, drains."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import time
from datetime import UTC, datetime

import orjson
import pytest

from handlers.producer import AsyncProducer
from tasks import keys
from tasks.contracts.base import canonical
from tasks.contracts.message import Body, Message
from tasks.contracts.request import Request
from tasks.contracts.row import Row, Stage
from tasks.scheduled import open_sweeper
from tasks.settings import Settings
from tasks.stores.broker import Parcel
from tasks.stores.connect import Stores, connect
from tests.e2e.conftest import Fleet
from tests.support import trust
from tests.support.evidence import gather

RESPONDER = keys.agent_pool("responder")


def tenant_of(test: str) -> str:
    return f"{test}-{time.time_ns()}"


async def open_and_publish(
    settings: Settings, stores: Stores, request: Request, version: str, **unknown: object
) -> str:
    """Put a request on the intent queue whose message has another schema version; return its ref."""
    now = time.time()
    message = Message(
        id=request.id,
        tenant=request.tenant,
        digest=request.digest(),
        grant=trust.granted(settings, request),
        body=Body(encoding="json", data=request.body().decode()),
        accepted_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    raw = canonical({**orjson.loads(message.to_json()), "schema_version": version, **unknown}).decode()
    row = Row(
        tenant=request.tenant,
        id=request.id,
        digest=request.digest(),
        stage=Stage.ROUTE,
        queue="requests",
        message=raw,
        accepted_at=now,
    )
    ref = keys.ref(request.tenant, request.id)
    await stores.register.open([row], due=now + 60)
    await stores.broker.publish([Parcel("requests", ref, raw, now)])
    await stores.register.published([(ref, "requests", 0)], now=now)
    return ref


async def test_a_newer_minor_version_is_processed_and_a_newer_major_one_handed_back_uncounted(
    settings: Settings, fleet: Fleet
) -> None:
    tenant = tenant_of("versions")
    minor = Request(id="minor", tenant=tenant, text="What is a queue?")
    major = Request(id="major", tenant=tenant, text="What is a topic?")
    async with connect(settings) as stores, AsyncProducer(settings, tenant=tenant) as producer:
        major_ref = await open_and_publish(settings, stores, major, "2.0", shape="unknown")
        await open_and_publish(settings, stores, minor, "1.9", colour="blue")
        fleet.worker(keys.INTENT_POOL)
        fleet.worker(RESPONDER)
        result = await producer.result("minor", 60)
        assert result.request_id == "minor"
        await asyncio.sleep(1)  # several hand-backs
        row = await stores.register.get(major_ref)
        assert row is not None
        assert (row.attempts, row.holder, row.stage) == (0, "", Stage.ROUTE)
        fleet.stop()
        for _ in range(200):
            depth = (await stores.broker.depths([keys.INTENT_POOL]))[keys.INTENT_POOL]
            if depth.total:
                break
        assert depth.total == 1, "the message is neither waiting nor in flight"


async def test_a_backlog_of_five_thousand_is_not_reenqueued(settings: Settings) -> None:
    tenant = tenant_of("backlog")
    async with connect(settings) as stores, AsyncProducer(settings, tenant=tenant) as producer:
        await producer.submit_many(f"Question number {n}?" for n in range(5000))
        later = [time.time()]

        async with open_sweeper(settings, now=lambda: datetime.fromtimestamp(later[0], UTC)) as sweeper:
            for hours in (0, 0.01, 1, 24):
                later[0] += hours * 3600
                assert (await sweeper.run_once()).total == 0
        assert await stores.broker.length("requests") == 5000


async def test_killed_workers_lose_nothing(settings: Settings, fleet: Fleet) -> None:
    await survive_kills(settings, fleet, requests=60, seconds_between=2.0)


@pytest.mark.slow
async def test_a_thousand_requests_survive_kills_every_few_seconds(settings: Settings, fleet: Fleet) -> None:
    await survive_kills(settings, fleet, requests=1000, seconds_between=3.0)


async def survive_kills(settings: Settings, fleet: Fleet, *, requests: int, seconds_between: float) -> None:
    tenant = tenant_of("kills")
    chance = random.Random(7)
    pools = [keys.INTENT_POOL, RESPONDER]
    fleet.sweeper()
    workers = {pool: fleet.worker(pool) for pool in pools}
    async with AsyncProducer(settings, tenant=tenant) as producer:
        ids = await producer.submit_many(
            {"id": f"k{n}", "text": f"Why is number {n} interesting?"} for n in range(requests)
        )

        async def kill_and_replace() -> None:
            while True:
                await asyncio.sleep(seconds_between)
                pool = chance.choice(pools)
                workers[pool].send_signal(signal.SIGKILL)
                workers[pool].wait()
                workers[pool] = fleet.worker(pool)

        for pool in settings.pools:
            if pool not in workers:
                fleet.worker(pool)
        killing = asyncio.create_task(kill_and_replace())
        try:
            finished = [result.request_id async for result in producer.results(ids, 200 + requests)]
        finally:
            killing.cancel()
    assert sorted(finished) == sorted(ids)
    evidence = await gather(settings, tenant)
    assert not evidence.faults
    assert len(evidence.results) == requests
    for request_id in ids:
        actions = set(evidence.actions(request_id))
        assert {"request.accepted", "agent.started", "result.written"} <= actions, (request_id, actions)


async def test_a_worker_told_to_stop_finishes_what_it_runs_and_acknowledges_it(
    settings: Settings, fleet: Fleet
) -> None:
    tenant = tenant_of("drain")
    async with connect(settings) as stores, AsyncProducer(settings, tenant=tenant) as producer:
        fleet.worker(keys.INTENT_POOL)
        worker = fleet.worker(RESPONDER)
        ids = await producer.submit_many({"text": f"What is {n}?", "intent": "answer_question"} for n in range(30))
        async for _ in producer.results(ids[:1], 60):
            worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 60) == 0
        depth = (await stores.broker.depths([RESPONDER]))[RESPONDER]
        assert depth.running == 0, "acknowledgements did not reach the broker while draining"
        fleet.worker(RESPONDER)
        assert len([result async for result in producer.results(ids, 60)]) == 30
    evidence = await gather(settings, tenant)
    written = [
        record for records in evidence.records.values() for record in records if record.action == "result.written"
    ]
    assert len(written) == 30, "a drained request ran twice"


async def test_one_worker_may_serve_every_pool(settings: Settings, fleet: Fleet) -> None:
    tenant = tenant_of("pools")
    intents = ["plan_task", "query_data", "call_api", "answer_question", "talk_to_human"]
    async with connect(settings) as stores, AsyncProducer(settings, tenant=tenant) as producer:
        every = [part for pool in settings.pools for part in ("--pool", pool)]
        worker = fleet.start("worker", *every)
        ids = await producer.submit_many(
            {"id": f"{intent}-{n}", "text": f"Tell me about order {n}.", "intent": intent}
            for intent in intents
            for n in range(4)
        )
        types = {result.request_id: result.agent async for result in producer.results(ids, 60)}
        assert {agent.type for agent in types.values() if agent} == {*settings.agent_types}
        assert {facts["pool"] for facts in await stores.board.workers(since=time.time() - 60)} == {*settings.pools}
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 60) == 0
        assert {depth.total for depth in (await stores.broker.depths(settings.pools)).values()} == {0}
        assert await stores.board.workers(since=time.time() - 60) == []
    assert not (await gather(settings, tenant)).faults


async def test_a_worker_that_starts_before_its_server_waits_for_it(settings: Settings, fleet: Fleet) -> None:
    """A server that is away when a worker starts is tried again and again; see also what a worker logs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nowhere = f"redis://127.0.0.1:{held.getsockname()[1]}/0"
        worker = fleet.worker(RESPONDER, SLUICE_REDIS_URL=nowhere)
        await asyncio.sleep(6)
        assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 60) == 0
    assert "cannot receive" in fleet.logs()


async def test_turns_of_a_session_run_in_the_order_of_acceptance(settings: Settings, fleet: Fleet) -> None:
    tenant = tenant_of("turns")
    async with AsyncProducer(settings, tenant=tenant) as producer:
        ids = await producer.submit_many(
            {"id": f"turn{n}", "text": f"What is {n}?", "session_id": "talk", "intent": "answer_question"}
            for n in range(8)
        )
        fleet.sweeper()
        fleet.worker(keys.INTENT_POOL)
        fleet.worker(RESPONDER)
        fleet.worker(RESPONDER)
        results = {result.request_id: result async for result in producer.results(ids, 90)}
    ends = [results[request_id].timings.finished_at for request_id in ids]
    assert ends == sorted(ends)
    assert len((await gather(settings, tenant)).sessions) == 8


def task_message(body: str, **properties: str) -> bytes:
    """Return a message in Celery's form."""
    where = {"exchange": "", "routing_key": "requests"}
    return orjson.dumps(
        {
            "body": body,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": "sluice.route", "id": "x"},
            "properties": {"delivery_tag": "t", "delivery_info": where, **properties},
        }
    )


JUNK = [
    b"\x00\xff junk",
    b"null",
    b"123",
    b"{}",
    b'{"body": "e30=", "headers": {}, "properties": {}}',
    b'{"body": 7, "headers": {"task": [], "id": 1}, "properties": {"delivery_tag": 1}}',
    task_message("not base64!", body_encoding="base64"),
    task_message("[[]]"),
    task_message('[[{"x":' + "[" * 300 + "]" * 300 + "}],{},{}]", delivery_tag="u"),
]


async def test_junk_on_a_queue_is_quarantined_and_stops_nobody(settings: Settings, fleet: Fleet) -> None:
    tenant = tenant_of("junk")
    async with connect(settings) as stores, AsyncProducer(settings, tenant=tenant) as producer:
        for junk in JUNK:
            await stores.link.call("LPUSH", keys.waiting("requests"), junk)
        request_id = await producer.submit("What is a queue?", intent="answer_question")
        fleet.sweeper()
        workers = [fleet.worker(keys.INTENT_POOL), fleet.worker(RESPONDER)]
        assert (await producer.result(request_id, 60)).status == "succeeded"
        for _ in range(100):
            if await stores.broker.length(keys.QUARANTINE) == len(JUNK):
                break
            await asyncio.sleep(0.1)
        assert await stores.broker.length(keys.QUARANTINE) == len(JUNK)
        assert await stores.broker.length("requests") == 0
        assert [worker.poll() for worker in workers] == [None, None]

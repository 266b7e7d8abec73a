"""A file that is dropped into the bucket, and a message on a queue, become results: real processes, no Lambda."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import boto3
import orjson
import pytest
from moto.server import ThreadedMotoServer

from handlers.producer import AsyncProducer
from tasks import keys
from tasks.contracts.result import Status
from tasks.errors import NotFound
from tasks.settings import Settings
from tasks.stores.connect import Stores, connect
from tests.e2e.conftest import Fleet

RESPONDER = keys.agent_pool("responder")


@pytest.fixture
def prefix(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of this test's own, of the tenant ``acme``."""
    own = f"uploads/{time.time_ns()}/"
    monkeypatch.setenv("SLUICE_EVENTS__BUCKETS", orjson.dumps([{"prefix": own, "tenant": "acme"}]).decode())
    return own


async def said(fleet: Fleet, *words: str) -> None:
    async with asyncio.timeout(60):
        while not all(word in fleet.logs() for word in words):
            await asyncio.sleep(0.1)


async def manifest_of(stores: Stores, key: str) -> list[dict[str, object]]:
    """Return what became of the lines of the object ``key``."""
    async with asyncio.timeout(60):
        while True:
            async for found in stores.data.list(keys.MANIFESTS):
                head, *lines = [orjson.loads(line) for line in (await stores.data.get(found)).splitlines()]
                if head["key"] == key:
                    return lines
            await asyncio.sleep(0.2)


async def test_a_file_that_is_dropped_into_the_bucket_becomes_results(
    settings: Settings, prefix: str, fleet: Fleet
) -> None:
    async with connect(settings) as stores, AsyncProducer(settings, tenant="acme") as producer:
        await stores.data.create(f"{prefix}before.txt", b"Was here before")
        watch = fleet.start("events", "watch")
        fleet.worker(keys.INTENT_POOL)
        fleet.worker(RESPONDER)
        await said(fleet, '"watching"')
        lines = [{"text": f"What is number {number}?", "intent": "answer_question"} for number in range(5)]
        body = b"\n".join(map(orjson.dumps, [*lines, {"text": 7}]))
        await stores.data.create(f"{prefix}asked.jsonl", body)
        became = await manifest_of(stores, f"{prefix}asked.jsonl")
        ids = [str(line["id"]) for line in became if "id" in line]
        assert len(ids) == 5
        assert "text" in str(became[5]["error"])
        results = [result async for result in producer.results(ids, 60)]
        assert {result.status for result in results} == {Status.SUCCEEDED}

        watch.send_signal(signal.SIGTERM)
        assert watch.wait(10) == 0
        await stores.data.create(f"{prefix}meanwhile.txt", b"Came while nobody watched")
        fleet.start("events", "watch")
        assert len(await manifest_of(stores, f"{prefix}meanwhile.txt")) == 1
        assert "before.txt" not in fleet.logs()


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", f"http://{host}:{port}")
    yield f"http://{host}:{port}"
    server.stop()


async def test_messages_of_a_queue_become_results_and_junk_a_dead_letter(
    settings: Settings, prefix: str, sqs: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client("sqs", endpoint_url=sqs, region_name=settings.region)
    urls = {name: client.create_queue(QueueName=name)["QueueUrl"] for name in ("intake", "notices", "dead")}
    monkeypatch.setenv("SLUICE_EVENTS__QUEUES", '[{"name": "intake", "tenant": "acme"}]')
    monkeypatch.setenv("SLUICE_EVENTS__DEAD_LETTERS", urls["dead"])
    asked = f"asked-{time.time_ns()}"
    client.send_message(
        QueueUrl=urls["intake"],
        MessageBody=orjson.dumps({"id": asked, "text": "What is a queue?", "intent": "answer_question"}).decode(),
    )
    client.send_message(QueueUrl=urls["intake"], MessageBody="junk")
    async with connect(settings) as stores, AsyncProducer(settings, tenant="acme") as producer:
        key = f"{prefix}notified.txt"
        await stores.data.create(key, b"What is a notice?")
        found = {"bucket": {"name": settings.data_bucket}, "object": {"key": key, "eTag": "v", "size": 1}}
        notice = {"Records": [{"eventName": "ObjectCreated:Put", "s3": found}]}
        client.send_message(QueueUrl=urls["notices"], MessageBody=orjson.dumps(notice).decode())
        client.send_message(QueueUrl=urls["notices"], MessageBody="junk")
        poll = fleet.start("events", "poll", "--notices", "notices")
        fleet.worker(keys.INTENT_POOL)
        fleet.worker(RESPONDER)
        await said(fleet, '"queue": "intake", "taken": ')
        assert (await producer.result(asked, 60)).status is Status.SUCCEEDED
        assert len(await manifest_of(stores, key)) == 1
        await said(fleet, '"taken": 1, "again": 1')
    poll.send_signal(signal.SIGTERM)
    assert poll.wait(10) == 0  # though it waits for messages
    [letter] = client.receive_message(QueueUrl=urls["dead"], MessageAttributeNames=["All"])["Messages"]
    assert "JSON" in letter["MessageAttributes"]["reason"]["StringValue"]
    counts = {
        name: client.get_queue_attributes(QueueUrl=urls[name], AttributeNames=["All"])["Attributes"] for name in urls
    }
    assert counts["intake"]["ApproximateNumberOfMessagesNotVisible"] == "0"
    assert counts["notices"]["ApproximateNumberOfMessagesNotVisible"] == "1"  # it comes back


async def test_a_queue_that_is_not_there_is_an_error_that_names_it(
    settings: Settings, sqs: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_EVENTS__QUEUES", '[{"name": "no-such-queue"}]')
    poll = fleet.start("events", "poll")
    assert await asyncio.to_thread(poll.wait, 30) == NotFound.exit_code
    assert "no-such-queue" in fleet.logs()
    assert os.environ["AWS_ENDPOINT_URL_SQS"] == sqs

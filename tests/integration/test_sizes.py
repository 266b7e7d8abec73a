"""What is large passes by object storage, through each door and on both brokers; what is small travels as it is."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator

import orjson
import pytest

from handlers.events.intake import Taken, take_object
from handlers.events.notices import Created
from handlers.http.serve import make_app
from handlers.opening import open_door
from handlers.producer import AsyncProducer
from tasks import keys
from tasks.agents.fake import FakeRunner
from tasks.agents.tools.attachments import AttachmentStore
from tasks.agents.types import AgentTask
from tasks.contracts.result import Status
from tasks.contracts.words import MAX_TEXT_BYTES
from tasks.errors import InvalidInput
from tasks.runtime import Worker
from tasks.settings import Settings
from tasks.stores.connect import Stores, connect
from tests.support import aws
from tests.support.asgi import client_of

RESPONDER = "agents.responder"
POOLS = [keys.INTENT_POOL, RESPONDER]
LONG = "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyz ", k=600_000))
"""600 KB that do not compress into a message."""
ATTACHMENT = 10_000_000
OVERRIDE = {"intent": "answer_question"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with aws.serving() as address:
        yield address


@pytest.fixture(params=["redis", "sqs"])
def own(request: pytest.FixtureRequest, settings: Settings, address: str, tenant: str) -> Settings:
    if request.param == "redis":
        return settings
    return settings.changed(broker_url=aws.deploy(address, tenant, settings.pools, visibility=30))


@pytest.fixture
async def opened(own: Settings, stores: Stores) -> AsyncIterator[Stores]:
    async with connect(own) as found:
        yield found


def told(task: AgentTask) -> str:
    return f"{len(task.text)} {task.text[-5:]}"


@contextlib.asynccontextmanager
async def running(own: Settings) -> AsyncIterator[None]:
    """Workers of both hops, with the real classifier."""
    stopping = asyncio.Event()
    async with Worker(own, [keys.INTENT_POOL]) as intent, Worker(own, [RESPONDER], runner=FakeRunner(told)) as agent:
        serving = [asyncio.create_task(worker.run(stopping)) for worker in (intent, agent)]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(*serving)


async def encoding(opened: Stores, tenant: str, request_id: str) -> str:
    """How the body of an open request travels."""
    row = await opened.register.get(keys.ref(tenant, request_id))
    assert row is not None
    assert len(row.message) < 100_000
    return str(orjson.loads(row.message)["body"]["encoding"])


async def test_a_producers_texts_of_every_size_are_answered(own: Settings, opened: Stores, tenant: str) -> None:
    attached = f"{keys.attachment_prefix(tenant)}big.csv"
    await opened.data.create(attached, b"n,square\n" * (ATTACHMENT // 9))
    async with AsyncProducer(own, tenant=tenant) as producer:
        short = await producer.submit("What is a sluice?", **OVERRIDE)
        long = await producer.submit(LONG)
        longest = await producer.submit("y" * MAX_TEXT_BYTES, **OVERRIDE)
        with_file = await producer.submit("Sum it up.", attachments=[attached], **OVERRIDE)
        with pytest.raises(InvalidInput, match=f"text: .*limit is {MAX_TEXT_BYTES}: send the rest as an attachment"):
            await producer.submit("y" * (MAX_TEXT_BYTES + 1))
        ids = [short, long, longest, with_file]
        assert [await encoding(opened, tenant, each) for each in ids] == ["json", "object", "object", "json"]
        async with running(own):
            # Whatever the classifier makes of letters: the first hop has read and routed it.
            routed = [short, longest, with_file]
            results = {result.request_id: result async for result in producer.results(routed, 60)}
            await _until_routed(opened, tenant, long)
        assert {result.status for result in results.values()} == {Status.SUCCEEDED}
        assert results[longest].output == f"{MAX_TEXT_BYTES} yyyyy"
    read = await AttachmentStore(opened.data, own.tools.attachments).read(tenant, [attached], attached)
    assert len(read) > ATTACHMENT - 9


async def _until_routed(opened: Stores, tenant: str, request_id: str) -> None:
    async with asyncio.timeout(60):
        while (row := await opened.register.get(keys.ref(tenant, request_id))) and row.stage.value != "work":
            await asyncio.sleep(0.1)


async def test_a_long_text_through_the_http_door(own: Settings, opened: Stores) -> None:
    async with client_of(make_app(own)) as client, running(own):
        fields = {"text": LONG, **OVERRIDE}
        answer = await client.post("/v1/requests", json=fields, headers={"prefer": "wait=25"}, timeout=60)
        assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
        assert answer.json()["result"]["output"] == f"600000 {LONG[-5:]}"
    few = own.changed(http=own.http.changed(max_bytes=100_000))
    async with client_of(make_app(few)) as client:
        refused = await client.post("/v1/requests", json={"text": LONG})
        assert (refused.status_code, refused.json()["title"]) == (413, "too_large")
        assert "over 100000 bytes (http.max_bytes)" in refused.json()["detail"]


@pytest.mark.parametrize("name", ["one.txt", "one.json", "many.jsonl"])
async def test_a_long_text_by_an_objects_event(own: Settings, opened: Stores, tenant: str, name: str) -> None:
    key = f"{keys.UPLOADS}{tenant}/{name}"
    body = LONG.encode() if name.endswith(".txt") else orjson.dumps({"text": LONG, **OVERRIDE})
    await opened.data.create(key, body)
    async with open_door(own, "s3") as door:

        async def accept(requests):  # type: ignore[no-untyped-def]
            return await door.door.accept(requests, caller=door.gate.caller())

        created = Created(own.data_bucket, key, "v1", len(body))
        taken = await take_object(created, tenant=tenant, bucket=opened.data, manifests=opened.data, accept=accept)
    assert taken == Taken(accepted=1)
    assert (await opened.register.load(tenant))["open"] == 1

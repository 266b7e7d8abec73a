"""Poison on both brokers: tried as often as is configured, then a dead letter with a failed result; then redriven."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import orjson
import pytest

from handlers.cli import dlq
from handlers.deadletters import Done, Wanted
from handlers.letter import DEAD, QUARANTINE, DeadLetter, Standing
from handlers.producer import AsyncProducer
from tasks import keys
from tasks.agents.fake import FakeRunner
from tasks.contracts.base import canonical, utc_now
from tasks.contracts.message import Message
from tasks.contracts.request import Request
from tasks.contracts.result import Result, Status
from tasks.contracts.row import Row, Stage
from tasks.errors import ModelError
from tasks.runtime import Worker
from tasks.scheduled import open_sweeper
from tasks.settings import AgentSettings, Settings
from tasks.stores.broker import Broker, Parcel
from tasks.stores.connect import Stores, connect
from tests.support import aws, trust
from tests.support.letters_contract import CHECKS
from tests.support.world import classify

RESPONDER = "agents.responder"
POOLS = [keys.INTENT_POOL, RESPONDER]
ATTEMPTS = 3


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with aws.serving() as address:
        yield address


@pytest.fixture(params=["redis", "sqs"])
def own(request: pytest.FixtureRequest, settings: Settings, address: str, tenant: str) -> Settings:
    """Settings for quick recovery on either broker."""
    found = settings.changed(
        agents=(AgentSettings(type="responder"),),
        queue=settings.queue.changed(attempts=ATTEMPTS, retry_seconds=0.05, hand_back_seconds=0.2),
        leases=settings.leases.changed(heartbeat_seconds=0.5, unpublished_seconds=2, lost_seconds=1),
    )
    pools = found.pools
    if request.param == "redis":
        return found
    return found.changed(broker_url=aws.deploy(address, tenant, pools, visibility=1, receives=ATTEMPTS))


@pytest.fixture
async def opened(own: Settings, stores: Stores) -> AsyncIterator[Stores]:
    async with connect(own) as found:
        yield found


@contextlib.asynccontextmanager
async def running(own: Settings, runner: FakeRunner, *, pools: list[str] = POOLS) -> AsyncIterator[None]:
    """Workers and a sweeper, in this process."""
    stopping = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(Worker(own, [pool], classify=classify, runner=runner)) for pool in pools
        ]
        sweeper = await stack.enter_async_context(open_sweeper(own))

        async def sweep() -> None:
            while not stopping.is_set():
                await sweeper.run_once()
                await asyncio.sleep(0.1 if own.broker_url is None else 0.5)

        tasks = [asyncio.create_task(worker.run(stopping)) for worker in workers] + [asyncio.create_task(sweep())]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def operator(own: Settings) -> AsyncIterator[Any]:
    async with dlq._desk(own) as desk:
        yield desk


async def letters(own: Settings, wanted: Wanted) -> list[DeadLetter]:
    async with operator(own) as desk:
        return [letter async for page in desk.find(wanted) for letter in page]


async def redrive(own: Settings, wanted: Wanted) -> list[Done]:
    async with operator(own) as desk:
        return [one async for page in desk.find(wanted) for one in await desk.redrive(page)]


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.1)


def failed_for_good(result: Result) -> bool:
    return result.status is Status.FAILED and result.error is not None and result.error.code == "attempts_exhausted"


@pytest.mark.parametrize("check", CHECKS)
async def test_the_contract_of_letters(opened: Stores, check: Callable[[Broker], Awaitable[None]]) -> None:
    await check(opened.broker)


async def test_an_agent_that_always_raises_then_the_mend_and_a_redrive(
    own: Settings, opened: Stores, tenant: str
) -> None:
    broken = FakeRunner(ModelError("the endpoint is away"))
    async with AsyncProducer(own, tenant=tenant) as producer:
        async with running(own, broken):
            ids = await producer.submit_many({"id": f"p{n}", "text": f"Why {n}?"} for n in range(3))
            async for result in producer.results(ids, 60):
                assert failed_for_good(result)
                assert result.error
                assert result.error.attempts == ATTEMPTS
        assert len(broken.tasks) == 3 * ATTEMPTS
        found = await letters(own, Wanted(tenant=tenant, boxes=(DEAD,)))
        assert sorted(one.request_id for one in found) == ids
        assert {(one.attempts, one.standing) for one in found} == {(ATTEMPTS, Standing.DEAD)}
        # Two operators at once: each request is opened once, and no letter is left.
        both = await asyncio.gather(*(redrive(own, Wanted(tenant=tenant, boxes=(DEAD,))) for _ in range(2)))
        assert sum(one.fresh for done in both for one in done) == 3
        mended = FakeRunner("mended")
        async with running(own, mended):
            results = [result async for result in producer.results(ids, 60)]
        assert {(result.revision, result.output) for result in results} == {(2, "mended")}
        assert len(mended.tasks) == 3
    assert await letters(own, Wanted(tenant=tenant, boxes=(DEAD,))) == []


async def test_junk_is_quarantined_at_once_and_cannot_be_redriven(own: Settings, opened: Stores, tenant: str) -> None:
    for junk in ('{"schema_version": "1.0"}', "[]", "null"):
        await opened.broker.publish([Parcel("requests", "x", junk, time.time())])
    if own.broker_url is None:
        await opened.link.call("LPUSH", keys.waiting("requests"), b"\x00\xff")
    else:
        url = "http" + own.broker_url.removeprefix("sqs+http") + "-requests"
        aws.client("sqs", url.split("/")[2]).send_message(QueueUrl=url, MessageBody="not even JSON")
    async with running(own, FakeRunner("fine")), AsyncProducer(own, tenant=tenant) as producer:
        assert (await producer.result(await producer.submit("What is a queue?"), 60)).output == "fine"
        await until(lambda: _has(opened, keys.QUARANTINE, 4))
    found = await letters(own, Wanted(boxes=(QUARANTINE,)))
    assert [one.standing for one in found] == [Standing.REFUSED] * 4
    assert all(one.reason for one in found)
    assert all("no door wrote it" in one.why for one in await redrive(own, Wanted(boxes=(QUARANTINE,))))
    assert await _has(opened, keys.QUARANTINE, 4)


async def _has(opened: Stores, queue: str, count: int) -> bool:
    return await opened.broker.length(queue) == count


async def test_a_message_of_a_newer_version_goes_round_unread_and_is_never_buried(
    own: Settings, opened: Stores, tenant: str
) -> None:
    asked = Request(id="newer", tenant=tenant, text="What is a topic?")
    now = time.time()
    message = Message(
        id=asked.id,
        tenant=tenant,
        digest=asked.digest(),
        grant=trust.granted(own, asked),
        body=await opened.bodies.pack(asked, asked.digest()),
        accepted_at=utc_now(),
    )
    text = canonical({**orjson.loads(message.to_json()), "schema_version": "2.0"}).decode()
    row = Row(
        tenant=tenant,
        id="newer",
        digest=message.digest,
        stage=Stage.ROUTE,
        queue="requests",
        message=text,
        accepted_at=now,
        recorded=True,
    )
    await opened.register.open([row], due=now + 60)
    await opened.relay.publish([row], now=now)
    async with running(own, FakeRunner(), pools=[keys.INTENT_POOL]):
        await asyncio.sleep(ATTEMPTS * 2 * own.queue.hand_back_seconds + 2)
    standing = await opened.register.get(keys.ref(tenant, "newer"))
    assert standing is not None
    assert (standing.attempts, standing.losses, standing.holder) == (0, 0, "")
    assert await opened.broker.length(keys.DEAD_LETTERS) == 0
    await until(lambda: _waits(opened))


async def _waits(opened: Stores) -> bool:
    return (await opened.broker.depths([keys.INTENT_POOL]))[keys.INTENT_POOL].waiting == 1


async def test_what_sqs_itself_buries_ends_as_failed_and_is_redriven(
    own: Settings, opened: Stores, tenant: str
) -> None:
    """Workers die before they begin it: the register hears nothing, and the queue is never empty."""
    if own.broker_url is None:
        pytest.skip("Redis buries nothing: the sweeper counts losses, tests/unit/test_sweep.py")
    broker = opened.broker
    async with AsyncProducer(own, tenant=tenant) as producer:
        poison = await producer.submit("I kill whoever reads me.", id="poison")
        await producer._settle()
        received = 0
        while not await _has(opened, keys.DEAD_LETTERS, 1):
            received += len(await broker.receive(keys.INTENT_POOL, 1, now=0))
            await asyncio.sleep(1.1)  # nobody acknowledges, nobody extends
            assert received <= ATTEMPTS
        assert received == ATTEMPTS
        await producer.submit("What is a queue?", id="behind")
        await producer._settle()
        async with open_sweeper(own) as sweeper:
            assert (await sweeper.run_once()).buried == 1
            assert (await sweeper.run_once()).total == 0
        assert failed_for_good(await producer.result(poison, 5))
        [letter] = await letters(own, Wanted(tenant=tenant, boxes=(DEAD,)))
        assert (letter.request_id, letter.standing) == ("poison", Standing.DEAD)
        assert "delivered it too often" in letter.reason
        assert [one.fresh for one in await redrive(own, Wanted(ids=("poison",), boxes=(DEAD,)))] == [True]
        async with running(own, FakeRunner("alive")):
            results = [result async for result in producer.results([poison, "behind"], 60)]
        assert {(result.request_id, result.revision) for result in results} == {("poison", 2), ("behind", 1)}

"""The broker on SQS (moto in server mode), and the whole path of a request on it with a real Redis and object store."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.producer import AsyncProducer
from tasks import keys
from tasks.agents.fake import FakeRunner
from tasks.contracts.result import Status
from tasks.errors import SettingsError, StoreError
from tasks.runtime import Worker
from tasks.settings import Settings
from tasks.stores.broker import Delivery, Depth, Parcel
from tasks.stores.connect import Stores
from tasks.stores.sqs_broker import BATCH, BATCH_BYTES, QueueUrls, SqsBroker, batches
from tests.support.sqs import REGION, deploy, sqs_server
from tests.support.world import classify

POOL = "agents.responder"
HIGH, NORMAL = keys.queues(POOL)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with sqs_server() as address:
        yield address


@pytest.fixture
def deployment(address: str, tenant: str, environment: dict[str, str]) -> str:
    """The URL of a deployment whose queues were made."""
    return deploy(address, tenant, [keys.INTENT_POOL, POOL], visibility=2)


@pytest.fixture
async def broker(deployment: str) -> AsyncIterator[SqsBroker]:
    made = broker_of(deployment)
    yield made
    await made.close()


def broker_of(deployment: str) -> SqsBroker:
    return SqsBroker(QueueUrls(deployment), region=REGION, loop_time=asyncio.get_running_loop().time)


def parcel(queue: str = NORMAL, number: int = 1) -> Parcel:
    return Parcel(queue, f"acme/r{number}", orjson.dumps({"number": number}).decode(), 1000.5)


def numbers(deliveries: list[Delivery]) -> list[int]:
    return sorted(orjson.loads(delivery.data)["message"]["number"] for delivery in deliveries)


async def test_high_goes_first_and_messages_are_counted(broker: SqsBroker) -> None:
    await broker.publish([*(parcel(number=number) for number in range(25)), parcel(HIGH, 99)])
    assert (await broker.depths([POOL]))[POOL] == Depth(26, 0)
    first = await broker.receive(POOL, 5, now=0)
    assert first[0].queue == HIGH
    rest = await broker.receive(POOL, 64, now=0)
    assert numbers(first + rest) == [*range(25), 99]
    assert (await broker.depths([POOL]))[POOL] == Depth(0, 26)
    await broker.acknowledge(POOL, [delivery.tag for delivery in first + rest])
    assert (await broker.depths([POOL]))[POOL] == Depth(0, 0)


async def test_an_idle_pool_waits_for_a_message_on_both_queues(broker: SqsBroker) -> None:
    assert await broker.receive(POOL, 8, now=0) == []
    for queue in (HIGH, NORMAL):
        waiting = asyncio.create_task(broker.receive(POOL, 8, now=0))
        await asyncio.sleep(0.3)
        await broker.publish([parcel(queue)])
        taken = await waiting
        await broker.acknowledge(POOL, [one.tag for one in taken])
        assert [one.queue for one in taken] == [queue]
        assert await broker.receive(POOL, 8, now=0) == []


async def test_what_is_given_back_and_what_a_dead_worker_had_come_again(broker: SqsBroker) -> None:
    await broker.publish([parcel(number=1), parcel(number=2)])
    taken = await broker.receive(POOL, 8, now=0)
    await broker.give_back(POOL, [taken[0].tag])
    again = await broker.receive(POOL, 8, now=0)
    assert numbers(again) == numbers(taken[:1])
    await asyncio.sleep(2.2)
    assert numbers(await broker.receive(POOL, 8, now=0)) == [1, 2]


async def test_a_message_that_is_worked_on_stays_away_past_its_timeout(broker: SqsBroker) -> None:
    await broker.publish([parcel()])
    [taken] = await broker.receive(POOL, 8, now=0)
    for _ in range(5):
        await asyncio.sleep(0.6)
        await broker.touch(POOL, [taken.tag], now=0)
    assert await broker.receive(POOL, 8, now=0) == []


async def test_nothing_counts_as_lost_while_anything_is_there(broker: SqsBroker) -> None:
    assert await broker.oldest(NORMAL) is None
    await broker.publish([parcel()])
    assert await broker.oldest(NORMAL) == 0.0


async def test_a_late_acknowledgement_is_no_fault_and_a_queue_that_is_not_there_is(broker: SqsBroker) -> None:
    await broker.publish([parcel()])
    [taken] = await broker.receive(POOL, 8, now=0)
    await broker.acknowledge(POOL, [taken.tag])
    await broker.acknowledge(POOL, [taken.tag])
    with pytest.raises(StoreError, match="agents-planner"):
        await broker.publish([parcel("agents.planner")])


@pytest.mark.parametrize("url", ["sqs://host", "sqs://host/1", "http://host/1/n", "sqs://host/1/n/m", "sqs:///1/n"])
def test_a_url_that_names_no_deployment(url: str) -> None:
    with pytest.raises(SettingsError, match="broker_url"):
        QueueUrls(url)


@given(st.lists(st.text(max_size=40).map(lambda text: text * 3000), max_size=40))
def test_batches_keep_order_count_and_size(bodies: list[str]) -> None:
    groups = batches(bodies)
    assert [body for group in groups for body in group] == bodies
    assert all(0 < len(group) <= BATCH for group in groups)
    assert all(len(group) == 1 or sum(len(body.encode()) for body in group) <= BATCH_BYTES for group in groups)


async def test_requests_run_on_sqs(settings: Settings, stores: Stores, deployment: str, tenant: str) -> None:
    own = settings.changed(broker_url=deployment)
    stopping = asyncio.Event()
    async with (
        Worker(own, [keys.INTENT_POOL], classify=classify) as intent,
        Worker(own, [POOL], runner=FakeRunner()) as responder,
        AsyncProducer(own, tenant=tenant) as producer,
    ):
        serving = [asyncio.create_task(worker.run(stopping)) for worker in (intent, responder)]
        ids = await producer.submit_many([f"What is {number}?" for number in range(40)])
        found: Counter[Any] = Counter()
        async for result in producer.results(ids, 60):
            found[result.status] += 1
        stopping.set()
        await asyncio.gather(*serving)
        assert found == {Status.SUCCEEDED: 40}
        depths = await responder._stores.broker.depths([keys.INTENT_POOL, POOL])
        assert set(depths.values()) == {Depth(0, 0)}

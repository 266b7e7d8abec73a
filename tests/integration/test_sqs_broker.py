"""The broker on SQS (moto in server mode), and the whole path of a request on it with a real Redis and object store."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import boto3
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
from tasks.scheduled import open_sweeper
from tasks.settings import AgentSettings, Settings
from tasks.stores import intake, sqs_broker
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


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs_broker, "LONG_POLL_SECONDS", 1)


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


async def received(broker: SqsBroker, most: int = 8) -> list[Delivery]:
    """Receive as a consumer does: look, and look again when the bell rings."""
    bell = asyncio.Event()
    await broker.listen(POOL, bell.set)
    while not (taken := await broker.receive(POOL, most, now=0)):
        bell.clear()
        async with asyncio.timeout(5):
            await bell.wait()
    return taken


async def nothing_comes(broker: SqsBroker) -> bool:
    """Tell whether a poll that waits brings nothing."""
    taken = await broker.receive(POOL, 8, now=0)
    await asyncio.sleep(1.3)
    return taken == [] and await broker.receive(POOL, 8, now=0) == []


def raw(deployment: str) -> Any:
    return boto3.client("sqs", endpoint_url=QueueUrls(deployment).endpoint, region_name=REGION)


class Calls:
    """Counts what a broker calls."""

    def __init__(self, broker: SqsBroker) -> None:
        self.made: Counter[str] = Counter()
        broker._client.meta.events.register("before-call.sqs", self._count)

    def _count(self, model: Any, **_: Any) -> None:
        self.made[cast("str", model.name)] += 1


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


async def test_an_idle_pool_waits_for_a_message_on_both_queues_and_hears_of_it_at_once(broker: SqsBroker) -> None:
    calls = Calls(broker)
    assert await broker.receive(POOL, 8, now=0) == []
    for queue in (HIGH, NORMAL):
        waiting = asyncio.create_task(received(broker))
        await asyncio.sleep(0.3)
        await broker.publish([parcel(queue)])
        began = asyncio.get_running_loop().time()
        taken = await waiting
        assert [one.queue for one in taken] == [queue]
        assert asyncio.get_running_loop().time() - began < 0.6  # not when the other queue's poll is over
        await broker.acknowledge(POOL, [one.tag for one in taken])
    before = calls.made["ReceiveMessage"]
    for _ in range(20):
        await broker.receive(POOL, 8, now=0)
    assert calls.made["ReceiveMessage"] - before <= 2  # looking again costs nothing


async def test_what_is_given_back_and_what_a_dead_worker_had_come_again(broker: SqsBroker) -> None:
    await broker.publish([parcel(number=1), parcel(number=2)])
    taken = await received(broker)
    await broker.give_back(POOL, [taken[0].tag])
    again = await received(broker)
    assert numbers(again) == numbers(taken[:1])
    await asyncio.sleep(2.2)
    found: list[Delivery] = []
    while len(found) < 2:
        found += await received(broker)
    assert numbers(found) == [1, 2]


async def test_a_message_that_is_worked_on_stays_away_past_its_timeout(broker: SqsBroker) -> None:
    await broker.publish([parcel()])
    [taken] = await received(broker)
    for _ in range(5):
        await asyncio.sleep(0.6)
        await broker.touch(POOL, [taken.tag], now=0)
    assert await nothing_comes(broker)


async def test_what_was_taken_while_the_last_slot_went_is_given_back(
    broker: SqsBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_HOLD_SECONDS", 0.1)
    assert await broker.receive(POOL, 1, now=0) == []
    await broker.publish([parcel(number=1)])
    await asyncio.sleep(1.2)
    assert numbers(await received(broker)) == [1]  # it came, found no slot, and went back


async def test_messages_that_were_taken_and_not_asked_for_go_back_at_the_end(
    broker: SqsBroker, deployment: str
) -> None:
    assert await broker.receive(POOL, 1, now=0) == []
    await broker.publish([parcel()])
    await asyncio.sleep(0.3)
    await broker.close()
    url = QueueUrls(deployment).of(NORMAL)
    assert len(raw(deployment).receive_message(QueueUrl=url)["Messages"]) == 1


async def test_a_queue_that_cannot_be_waited_for_is_an_error_of_the_next_look(
    broker: SqsBroker, deployment: str
) -> None:
    assert await broker.receive(POOL, 1, now=0) == []
    raw(deployment).delete_queue(QueueUrl=QueueUrls(deployment).of(NORMAL))

    async def look() -> None:
        while True:
            await broker.receive(POOL, 1, now=0)
            await asyncio.sleep(0.1)

    with pytest.raises(StoreError, match="receive_message"):
        await asyncio.wait_for(look(), 20)


async def test_what_comes_together_travels_together(broker: SqsBroker) -> None:
    calls = Calls(broker)
    await asyncio.gather(*(broker.publish([parcel(number=number)]) for number in range(40)))
    taken = await broker.receive(POOL, 40, now=0)
    await asyncio.gather(*(broker.acknowledge(POOL, [one.tag]) for one in taken))
    assert len(taken) == 40
    assert calls.made["SendMessageBatch"] == 4
    assert calls.made["DeleteMessageBatch"] == 4
    assert calls.made["ReceiveMessage"] <= 6  # five with the look for the high queue, one when it is empty
    assert set(calls.made) == {"SendMessageBatch", "DeleteMessageBatch", "ReceiveMessage"}


async def test_a_message_lies_on_the_queue_as_it_is(broker: SqsBroker, deployment: str) -> None:
    await broker.publish([parcel(number=7)])
    [found] = raw(deployment).receive_message(QueueUrl=QueueUrls(deployment).of(NORMAL))["Messages"]
    assert orjson.loads(found["Body"]) == {"queued_at": 1000.5, "message": {"number": 7}}


async def test_nothing_counts_as_lost_while_anything_is_there(broker: SqsBroker) -> None:
    assert await broker.oldest(NORMAL) is None
    await broker.publish([parcel()])
    assert await broker.oldest(NORMAL) == 0.0


async def test_a_late_acknowledgement_is_no_fault_and_a_queue_that_is_not_there_is(broker: SqsBroker) -> None:
    await broker.publish([parcel()])
    [taken] = await received(broker)
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


async def test_a_retry_waits_in_the_register_and_poison_ends_with_its_attempts(
    settings: Settings, stores: Stores, deployment: str, tenant: str
) -> None:
    own = settings.changed(
        broker_url=deployment,
        agents=(AgentSettings(type="responder"),),  # nobody to fall back on
        queue=settings.queue.changed(attempts=3, retry_seconds=0.2),
        leases=settings.leases.changed(unpublished_seconds=0.5),
    )
    runner = FakeRunner(OSError("no luck"))
    stopping = asyncio.Event()
    async with (
        Worker(own, [POOL], runner=runner) as responder,
        Worker(own, [keys.INTENT_POOL], classify=classify) as intent,
        open_sweeper(own) as sweeper,
        AsyncProducer(own, tenant=tenant) as producer,
    ):
        calls = Calls(responder._stores.broker)  # type: ignore[arg-type]
        serving = [asyncio.create_task(worker.run(stopping)) for worker in (intent, responder)]
        asked = await producer.submit("What is poison?", intent="answer_question")
        async with asyncio.timeout(40):
            while await stores.results.get(tenant, asked) is None:
                await sweeper.run_once()
                await asyncio.sleep(0.1)
        stopping.set()
        await asyncio.gather(*serving)
        result = await producer.result(asked, 5)
        assert result.status is Status.FAILED
        assert len(runner.tasks) == 3
        assert not calls.made["ChangeMessageVisibilityBatch"]  # no message is made to come back later
        assert await responder._stores.broker.length(keys.DEAD_LETTERS) == 1
        assert set((await responder._stores.broker.depths([keys.INTENT_POOL, POOL])).values()) == {Depth(0, 0)}


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

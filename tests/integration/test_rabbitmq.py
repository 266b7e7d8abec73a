"""The broker on a RabbitMQ of the tests' own, and the whole path of a request on it; skipped where there is none."""

import asyncio
import builtins
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.producer import AsyncProducer
from tasks import keys
from tasks.agents.fake import FakeRunner
from tasks.contracts.result import Status
from tasks.errors import NotReady, SettingsError, StoreError, Unreachable
from tasks.runtime import Worker
from tasks.scheduled import open_sweeper
from tasks.settings import AgentSettings, Settings
from tasks.stores import amqp, intake, rabbitmq_broker
from tasks.stores.amqp import Address
from tasks.stores.broker import Broker, Delivery, Depth, Parcel
from tasks.stores.connect import Stores
from tasks.stores.rabbitmq_broker import DELIVERY_LIMIT, RabbitBroker
from tests.support.letters_contract import CHECKS
from tests.support.rabbitmq import Node, serving
from tests.support.world import classify

pytest.importorskip("aiormq", reason="needs the extra: pip install 'sluice[rabbitmq]'")

POOL = "agents.responder"
HIGH, NORMAL = keys.queues(POOL)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with serving() as node:
        yield node


@pytest.fixture
def vhost(node: Node, tenant: str) -> Iterator[str]:
    """A virtual host of this test's own."""
    node.made(tenant)
    yield tenant
    node.resumed()
    node.dropped(tenant)


@pytest.fixture
def url(node: Node, vhost: str) -> str:
    return node.address(vhost)


@pytest.fixture
async def broker(url: str) -> AsyncIterator[RabbitBroker]:
    made = RabbitBroker(url)
    yield made
    await made.close()


@pytest.fixture
async def other(url: str) -> AsyncIterator[RabbitBroker]:
    """Another process."""
    made = RabbitBroker(url)
    yield made
    await made.close()


def parcel(queue: str = NORMAL, number: int = 1) -> Parcel:
    return Parcel(queue, f"acme/r{number}", orjson.dumps({"number": number}).decode(), 1000.5)


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [orjson.loads(delivery.data)["message"]["number"] for delivery in deliveries]


async def received(broker: RabbitBroker, most: int = 8) -> list[Delivery]:
    """Receive as a consumer does: look, and look again when the bell rings."""
    bell = asyncio.Event()
    await broker.listen(POOL, bell.set)
    while not (taken := await broker.receive(POOL, most, now=0)):
        bell.clear()
        async with asyncio.timeout(10):
            await bell.wait()
    return taken


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.1)


async def die(broker: RabbitBroker, queue: str) -> None:
    """Take the message of ``queue`` and lose the connection, until RabbitMQ has had enough."""

    async def taken() -> bool:
        return len(await broker._fetch(f"take {queue}", queue, 1)) == 1

    for _ in range(DELIVERY_LIMIT + 1):
        await until(taken)
        await broker._wire.close()


async def load(broker: RabbitBroker) -> Depth:
    return (await broker.depths([POOL]))[POOL]


@pytest.mark.parametrize("check", CHECKS)
async def test_the_contract_of_letters(broker: RabbitBroker, check: Callable[[Broker], Awaitable[None]]) -> None:
    await check(broker)


async def test_high_goes_first_order_is_kept_and_messages_are_counted(broker: RabbitBroker) -> None:
    await broker.publish([parcel(number=number) for number in range(25)])
    await broker.publish([parcel(HIGH, 99)])
    assert await load(broker) == Depth(26, 0)
    taken = await broker.receive(POOL, 5, now=0) + await broker.receive(POOL, 64, now=0)
    assert numbers(taken) == [99, *range(25)]
    assert len({one.tag for one in taken}) == 26

    async def counted() -> bool:
        return await load(broker) == Depth(0, 26)

    await until(counted)
    assert [await broker.oldest(name) for name in (HIGH, NORMAL)] == [0.0, 0.0]  # in hand, so not lost
    for _ in range(2):
        await broker.acknowledge(POOL, [one.tag for one in taken])

    async def empty() -> bool:
        return await load(broker) == Depth(0, 0) and await broker.oldest(NORMAL) is None

    await until(empty)


async def test_without_the_management_plugin_nothing_counts_as_lost(node: Node, vhost: str) -> None:
    broker = RabbitBroker(node.address(vhost, management=False))
    assert await broker.oldest(NORMAL) == 0.0
    await broker.publish([parcel()])
    assert await load(broker) == Depth(1, 0)
    assert await broker.length(NORMAL) == 1
    await broker.close()


async def test_an_idle_pool_hears_of_a_message_on_either_queue_at_once(broker: RabbitBroker) -> None:
    assert await broker.receive(POOL, 8, now=0) == []
    for queue in (HIGH, NORMAL, HIGH):
        waiting = asyncio.create_task(received(broker))
        await asyncio.sleep(0.3)
        await broker.publish([parcel(queue)])
        began = asyncio.get_running_loop().time()
        taken = await waiting
        assert [one.queue for one in taken] == [queue]
        assert asyncio.get_running_loop().time() - began < 0.6
        await broker.acknowledge(POOL, [one.tag for one in taken])


async def test_no_more_is_taken_than_there_are_slots(broker: RabbitBroker, other: RabbitBroker) -> None:
    assert await broker.receive(POOL, 2, now=0) == []  # both queues are waited for, with credit for two each
    await other.publish([parcel(queue, number) for queue in (HIGH, NORMAL) for number in range(10)])
    await asyncio.sleep(0.5)
    assert (await load(other)).waiting >= 16
    assert len(await received(other, 64)) >= 16  # another worker begins them


async def test_what_found_no_slot_is_given_back_uncounted(
    broker: RabbitBroker, other: RabbitBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_HOLD_SECONDS", 0.1)
    assert await broker.receive(POOL, 1, now=0) == []
    await broker.publish([parcel(number=1)])
    await asyncio.sleep(1)
    assert numbers(await received(other)) == [1]


async def test_what_is_given_back_comes_again_however_often(broker: RabbitBroker) -> None:
    await broker.publish([parcel(number=1), parcel(number=2)])
    for _ in range(DELIVERY_LIMIT + 3):
        [taken] = await received(broker, 1)
        await broker.give_back(POOL, [taken.tag, taken.tag, "take gone\n1\n1"])
    assert await broker.length(NORMAL) == 2
    assert await broker.length(keys.DEAD_LETTERS) == 0


async def test_what_a_dead_worker_had_comes_again_by_itself(broker: RabbitBroker, other: RabbitBroker) -> None:
    await broker.publish([parcel(number=number) for number in (1, 2, 3)])
    taken = await received(broker, 2)
    assert await broker.restore(POOL, before=4e9, limit=9) == 0
    await broker.touch(POOL, [one.tag for one in taken], now=0)
    await broker._wire.close()
    again: list[Delivery] = []
    while len(again) < 3:
        again += await received(other)
    assert sorted(numbers(again)) == [1, 2, 3]
    await broker.acknowledge(POOL, [one.tag for one in taken])  # of a channel that is gone: no fault, no effect
    await broker.give_back(POOL, [one.tag for one in taken])
    assert await broker.length(NORMAL) == 0


async def test_what_was_taken_and_not_asked_for_goes_back_at_the_end(broker: RabbitBroker, other: RabbitBroker) -> None:
    assert await broker.receive(POOL, 1, now=0) == []
    await broker.publish([parcel()])
    await asyncio.sleep(0.3)
    await broker.close()
    assert numbers(await received(other)) == [1]


async def test_a_message_that_ends_its_workers_is_buried_with_its_reason(broker: RabbitBroker) -> None:
    await broker.publish([parcel(number=7)])
    await die(broker, NORMAL)

    async def buried() -> bool:
        return await broker.length(keys.DEAD_LETTERS) == 1

    await until(buried)
    [letter] = await broker.letters(keys.DEAD_LETTERS, 5)
    assert orjson.loads(letter.data)["message"] == {"number": 7}
    assert letter.reason == "delivery_limit"
    assert await broker.length(NORMAL) == 0


async def test_letters_are_looked_at_as_often_as_one_likes_and_hidden_for_a_while_only(
    broker: RabbitBroker, other: RabbitBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_broker, "_SHOWN_SECONDS", 0.5)
    await broker.publish([parcel(keys.QUARANTINE, 1)])
    for _ in range(DELIVERY_LIMIT + 5):
        [letter] = await broker.letters(keys.QUARANTINE, 5)
        await broker.leave(keys.QUARANTINE, [letter.tag])
    assert len(await broker.letters(keys.QUARANTINE, 5)) == 1
    assert await other.letters(keys.QUARANTINE, 5) in ([], [letter])

    async def shown() -> bool:
        return len(await other.letters(keys.QUARANTINE, 5)) == 1

    await until(shown)


@pytest.mark.parametrize("junk", [b"\x00\xff junk\n\n", b"null", b""])
async def test_bytes_that_are_no_message_travel_whole(broker: RabbitBroker, junk: bytes) -> None:
    await broker._send(NORMAL, junk)
    [delivery] = await received(broker)
    assert (delivery.queue, delivery.data) == (NORMAL, junk)
    await broker.give_back(POOL, [delivery.tag])
    assert [one.data for one in await received(broker)] == [junk]


async def test_a_queue_that_is_something_else_is_an_error_that_names_it(broker: RabbitBroker) -> None:
    async with broker._wire.guarded("test"):
        line = await broker._wire.line("declare")
        await line.channel.queue_declare(NORMAL, durable=True)
    for _ in range(2):
        with pytest.raises(StoreError, match=f"declare {NORMAL}: .*inequivalent arg"):
            await broker.publish([parcel()])
    await broker.publish([parcel(HIGH)])
    assert len(await broker.receive(POOL, 4, now=0)) == 1


async def test_a_queue_that_is_deleted_is_an_error_once_and_then_made_again(
    broker: RabbitBroker, node: Node, vhost: str
) -> None:
    await broker.publish([parcel()])
    node.dropped_queue(vhost, NORMAL)
    with pytest.raises(StoreError, match=f"publish to {NORMAL}"):
        await broker.publish([parcel()])
    await broker.publish([parcel()])
    assert await broker.length(NORMAL) == 1


async def test_a_connection_that_is_lost_while_a_pool_waits_is_made_again(
    broker: RabbitBroker, other: RabbitBroker
) -> None:
    assert await broker.receive(POOL, 1, now=0) == []
    await asyncio.sleep(0.3)
    connection = broker._wire._connection
    assert connection is not None
    await connection.close(OSError("cut"))
    await asyncio.sleep(0.3)
    await other.publish([parcel()])
    assert numbers(await received(broker)) == [1]


async def test_a_server_that_is_away_is_a_store_error_that_tells_no_password(unused_port: int) -> None:
    broker = RabbitBroker(f"amqp://user:hidden@127.0.0.1:{unused_port}/v?management=http://127.0.0.1:{unused_port}")
    calls: list[Awaitable[Any]] = [
        broker.publish([parcel()]),
        broker.receive(POOL, 1, now=0),
        broker.oldest(NORMAL),
        broker.depths([POOL]),
        broker.length(NORMAL),
        broker.letters(keys.QUARANTINE, 1),
    ]
    for call in calls:
        with pytest.raises(Unreachable, match=f"127.0.0.1:{unused_port}") as caught:
            await call
        assert "hidden" not in str(caught.value)
    await broker.close()


async def test_a_server_that_stands_still_is_a_store_error_and_found_again(
    broker: RabbitBroker, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp, "_CALL_SECONDS", 1.0)
    monkeypatch.setattr(amqp, "_CONNECT_SECONDS", 0.5)
    await broker.publish([parcel()])
    node.paused()
    waiting = [asyncio.create_task(broker.publish([parcel(number=2)]))]
    await asyncio.sleep(0.3)
    waiting.append(asyncio.create_task(broker.publish([parcel(number=3)])))  # fails with the connection
    assert {type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)} == {Unreachable}
    with pytest.raises(Unreachable, match="does not answer"):
        await broker.publish([parcel(number=2)])
    node.resumed()
    monkeypatch.setattr(amqp, "_CALL_SECONDS", 20.0)
    monkeypatch.setattr(amqp, "_CONNECT_SECONDS", 20.0)
    assert 1 in numbers(await received(broker))


async def test_a_wrong_password_is_a_store_error(node: Node, vhost: str) -> None:
    broker = RabbitBroker(node.address(vhost).replace("guest:guest", "guest:wrong"))
    with pytest.raises(StoreError):
        await broker.publish([parcel()])
    with pytest.raises(StoreError, match="401"):
        await broker._management.figures()  # type: ignore[union-attr]
    await broker.close()


@pytest.mark.parametrize("wrong", ["amqp://", "http://host", "amqp://host/v?management=host:1"])
def test_a_url_that_names_no_server(wrong: str) -> None:
    with pytest.raises(SettingsError, match="broker_url"):
        Address.of(wrong)


def test_an_address_is_read_whole() -> None:
    read = Address.of("amqps://u%40x:p%2Fw@host:5671/a%2Fb?cafile=ca.pem&management=https://m:15671/")
    assert (read.vhost, read.user, read.password, read.management) == ("a/b", "u@x", "p/w", "https://m:15671")
    assert read.name == "amqps://host:5671/a/b"
    assert "management" not in read.url
    assert "cafile=ca.pem" in read.url
    assert (Address.of("amqp://host").vhost, Address.of("amqp://host/").user) == ("/", "guest")


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_whatever_user_password_and_vhost_are_they_are_read(user: str, password: str, vhost: str) -> None:
    read = Address.of(f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@host:1/{quote(vhost, safe='')}")
    assert (read.user, read.password, read.vhost) == (user, password, vhost)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name == "aiormq":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(NotReady, match=r"sluice\[rabbitmq\]"):
        RabbitBroker("amqp://host")


async def test_requests_run_on_rabbitmq_by_url_alone(settings: Settings, stores: Stores, url: str, tenant: str) -> None:
    own = settings.changed(broker_url=url.partition("?")[0])
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
    broker = RabbitBroker(url)

    async def empty() -> bool:
        depths = await broker.depths([keys.INTENT_POOL, POOL])
        return set(depths.values()) == {Depth(0, 0)}

    await until(empty)
    await broker.close()


async def test_a_request_that_the_server_buried_ends_as_failed(
    settings: Settings, stores: Stores, url: str, tenant: str
) -> None:
    own = settings.changed(broker_url=url, agents=(AgentSettings(type="responder"),))
    broker = RabbitBroker(url)
    async with open_sweeper(own) as sweeper, AsyncProducer(own, tenant=tenant) as producer:
        asked = await producer.submit("What ends its workers?", intent="answer_question")
        queue = keys.queue(keys.INTENT_POOL, "normal")
        await die(broker, queue)

        async def ended() -> bool:
            await sweeper.run_once()
            return await stores.results.get(tenant, asked) is not None

        await until(ended, 40)
        result = await producer.result(asked, 5)
        assert result.status is Status.FAILED
    assert await broker.length(keys.DEAD_LETTERS) == 1
    await broker.close()

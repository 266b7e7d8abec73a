"""The broker on a real server: what is published, kombu reads; what kombu holds, the broker counts."""

import socket
from collections.abc import Iterator

import kombu
import orjson
import pytest
from kombu.transport.virtual import Channel

from tasks import keys
from tasks.errors import StoreError
from tasks.settings import Settings
from tasks.stores.broker import Depth, Parcel
from tasks.stores.connect import Stores
from tasks.stores.redis_broker import RedisBroker, transport_options

POOL = "agents.planner"
HIGH, NORMAL = keys.queues(POOL)
TEXT = "a secret text"


def parcel(queue: str = NORMAL, *, number: int = 1, queued_at: float = 1000.5) -> Parcel:
    message = orjson.dumps({"schema_version": "1.0", "number": number, "text": TEXT}).decode()
    return Parcel(queue, keys.WORK_TASK, f"acme/r{number}", message, queued_at)


@pytest.fixture
def channel(settings: Settings) -> Iterator[Channel]:
    """A worker's channel, as the Celery application of the pool opens it."""
    options = transport_options(POOL, visibility_seconds=60)
    with kombu.Connection(settings.redis_url, transport_options=options) as connection:
        yield connection.channel()


async def test_a_published_message_is_a_celery_task_message(stores: Stores, channel: Channel) -> None:
    await stores.broker.publish([parcel()])
    message = channel.basic_get(NORMAL)
    args, kwargs, embed = message.decode()
    assert args == [{"schema_version": "1.0", "number": 1, "text": TEXT}]
    assert kwargs == {}
    assert set(embed) == {"callbacks", "errbacks", "chain", "chord"}
    assert (message.headers["task"], message.headers["lang"]) == (keys.WORK_TASK, "py")
    assert message.headers["id"] == message.headers["root_id"]
    assert (message.headers["eta"], message.headers["expires"]) == (None, None)
    message.ack()


async def test_the_headers_do_not_repeat_the_request(stores: Stores, channel: Channel) -> None:
    await stores.broker.publish([parcel()])
    message = channel.basic_get(NORMAL)
    assert TEXT not in repr(message.headers) + repr(message.properties)
    assert (message.headers["argsrepr"], message.headers["kwargsrepr"]) == ("-", "-")
    message.ack()


async def test_messages_leave_in_the_order_in_which_they_came(stores: Stores, channel: Channel) -> None:
    await stores.broker.publish([parcel(number=number) for number in range(5)])
    assert [peeked["number"] for peeked in await stores.broker.peek(NORMAL)] == [0, 1, 2, 3, 4]
    assert [peeked["number"] for peeked in await stores.broker.peek(NORMAL, limit=2)] == [0, 1]
    taken = [channel.basic_get(NORMAL, no_ack=True).decode()[0][0]["number"] for _ in range(5)]
    assert taken == [0, 1, 2, 3, 4]


async def test_a_pool_has_two_queues_of_plain_names(stores: Stores) -> None:
    await stores.broker.publish([parcel(NORMAL), parcel(HIGH), parcel(HIGH)])
    assert [await stores.redis.llen(name) for name in (NORMAL, HIGH)] == [1, 2]
    assert [await stores.broker.length(name) for name in (NORMAL, HIGH, "none")] == [1, 2, 0]


async def test_waiting_and_running_are_counted(stores: Stores, channel: Channel) -> None:
    await stores.broker.publish([parcel(NORMAL), parcel(NORMAL), parcel(HIGH), parcel("agents.executor")])
    message = channel.basic_get(NORMAL)
    depths = await stores.broker.depths([POOL, "agents.executor", "intent"])
    assert depths == {POOL: Depth(2, 1), "agents.executor": Depth(1, 0), "intent": Depth(0, 0)}
    message.ack()
    assert (await stores.broker.depths([POOL]))[POOL] == Depth(2, 0)
    assert await stores.broker.depths([]) == {}


async def test_a_message_that_is_rejected_waits_again(stores: Stores, channel: Channel) -> None:
    await stores.broker.publish([parcel()])
    channel.basic_get(NORMAL).requeue()
    assert (await stores.broker.depths([POOL]))[POOL] == Depth(1, 0)


async def test_the_oldest_is_the_one_that_is_taken_next(stores: Stores, channel: Channel) -> None:
    assert await stores.broker.oldest(NORMAL) is None
    await stores.broker.publish([parcel(queued_at=1000.25), parcel(queued_at=2000.0)])
    assert await stores.broker.oldest(NORMAL) == 1000.25
    channel.basic_get(NORMAL, no_ack=True)
    assert await stores.broker.oldest(NORMAL) == 2000.0


async def test_a_message_of_another_producer_counts_as_the_oldest_of_all(stores: Stores) -> None:
    await stores.redis.lpush(NORMAL, b'{"body":"","headers":{}}')
    assert await stores.broker.oldest(NORMAL) == 0.0


async def test_touching_keeps_what_is_in_flight_and_revives_nothing(stores: Stores, channel: Channel) -> None:
    await stores.broker.publish([parcel()])
    message = channel.basic_get(NORMAL)
    tag = message.delivery_tag
    await stores.broker.touch(POOL, [tag, "gone"], now=4e9)
    await stores.broker.touch(POOL, [], now=4e9)
    assert await stores.redis.zrange(keys.unacked_index(POOL), 0, -1, withscores=True) == [(tag.encode(), 4e9)]
    message.ack()
    await stores.broker.touch(POOL, [tag], now=4e9)
    assert await stores.redis.zcard(keys.unacked_index(POOL)) == 0


async def test_publishing_nothing_is_no_error(stores: Stores) -> None:
    await stores.broker.publish([])


async def test_text_of_any_language_survives(stores: Stores, channel: Channel) -> None:
    text = 'quote " backslash \\ newline \n 日本 😀 \x00'
    await stores.broker.publish([Parcel(NORMAL, "t", "r", orjson.dumps({"text": text}).decode(), 0.0)])
    [[message], _, _] = channel.basic_get(NORMAL, no_ack=True).decode()
    assert message == {"text": text}


async def test_a_server_that_is_away_is_a_store_error(stores: Stores) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        broker = RedisBroker(stores.redis, f"redis://127.0.0.1:{unused.getsockname()[1]}/0")
        try:
            with pytest.raises(StoreError):
                await broker.publish([parcel()])
        finally:
            await broker.close()

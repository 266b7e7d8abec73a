"""The broker on a real server: what is published is received, counted, given back and restored; none is in between."""

import orjson
import pytest

from tasks import keys
from tasks.errors import StoreError, Unreachable
from tasks.stores import scripts
from tasks.stores.broker import Delivery, Depth, Parcel
from tasks.stores.connect import Stores
from tasks.stores.link import Link
from tasks.stores.redis_broker import RedisBroker

POOL = "agents.planner"
HIGH, NORMAL = keys.queues(POOL)


def parcel(queue: str = NORMAL, *, number: int = 1, queued_at: float = 1000.5) -> Parcel:
    message = orjson.dumps({"schema_version": "1.0", "number": number}).decode()
    return Parcel(queue, f"acme/r{number}", message, queued_at)


def number(delivery: Delivery) -> int:
    return int(orjson.loads(delivery.data)["message"]["number"])


async def test_messages_leave_in_the_order_in_which_they_came(stores: Stores) -> None:
    await stores.broker.publish([parcel(number=number) for number in range(5)])
    assert [peeked["number"] for peeked in await stores.broker.peek(NORMAL)] == [0, 1, 2, 3, 4]
    assert [peeked["number"] for peeked in await stores.broker.peek(NORMAL, limit=2)] == [0, 1]
    taken = await stores.broker.receive(POOL, 3, now=1.0) + await stores.broker.receive(POOL, 3, now=1.0)
    assert [number(delivery) for delivery in taken] == [0, 1, 2, 3, 4]
    assert len({delivery.tag for delivery in taken}) == 5


async def test_a_pool_has_two_queues_and_the_high_one_goes_first(stores: Stores) -> None:
    await stores.broker.publish([parcel(NORMAL), parcel(HIGH), parcel(HIGH)])
    assert [await stores.link.call("LLEN", keys.waiting(name)) for name in (NORMAL, HIGH)] == [1, 2]
    assert [await stores.broker.length(name) for name in (NORMAL, HIGH, "none")] == [1, 2, 0]
    assert [delivery.queue for delivery in await stores.broker.receive(POOL, 9, now=1.0)] == [HIGH, HIGH, NORMAL]


async def test_waiting_and_running_are_counted(stores: Stores) -> None:
    await stores.broker.publish([parcel(NORMAL), parcel(NORMAL), parcel(HIGH), parcel("agents.executor")])
    [delivery] = await stores.broker.receive(POOL, 1, now=1.0)
    depths = await stores.broker.depths([POOL, "agents.executor", "intent"])
    assert depths == {POOL: Depth(2, 1), "agents.executor": Depth(1, 0), "intent": Depth(0, 0)}
    await stores.broker.acknowledge(POOL, [delivery.tag])
    assert (await stores.broker.depths([POOL]))[POOL] == Depth(2, 0)
    assert await stores.link.call("ZCARD", keys.unacked_index(POOL)) == 0
    assert await stores.broker.depths([]) == {}


async def test_a_message_that_is_given_back_waits_at_the_end(stores: Stores) -> None:
    await stores.broker.publish([parcel(number=1), parcel(number=2)])
    [delivery] = await stores.broker.receive(POOL, 1, now=1.0)
    await stores.broker.give_back(POOL, [delivery.tag, "gone"])
    await stores.broker.give_back(POOL, [])
    assert [peeked["number"] for peeked in await stores.broker.peek(NORMAL)] == [2, 1]
    assert (await stores.broker.depths([POOL]))[POOL] == Depth(2, 0)


async def test_what_a_dead_worker_had_goes_back_to_the_front(stores: Stores) -> None:
    await stores.broker.publish([parcel(number=number) for number in (1, 2, 3)])
    await stores.broker.receive(POOL, 1, now=100.0)
    await stores.broker.receive(POOL, 1, now=200.0)
    assert await stores.broker.restore(POOL, before=150.0, limit=10) == 1
    assert await stores.broker.restore(POOL, before=150.0, limit=10) == 0
    assert [peeked["number"] for peeked in await stores.broker.peek(NORMAL)] == [1, 3]
    assert (await stores.broker.depths([POOL]))[POOL] == Depth(2, 1)


async def test_restoring_drops_a_mark_whose_message_is_gone(stores: Stores) -> None:
    await stores.link.call("ZADD", keys.unacked_index(POOL), 1, "stray")
    assert await stores.broker.restore(POOL, before=150.0, limit=10) == 0
    assert await stores.link.call("ZCARD", keys.unacked_index(POOL)) == 0


async def test_a_command_that_is_sent_twice_receives_the_same_messages(stores: Stores) -> None:
    await stores.broker.publish([parcel(number=number) for number in range(4)])
    wanted = [keys.unacked(POOL), keys.unacked_index(POOL), keys.waiting(HIGH), keys.waiting(NORMAL)]
    said = ["1.0", 2, HIGH, NORMAL, "tag-a", "tag-b"]
    once = await stores.link.run(scripts.RECEIVE, wanted, said)
    assert await stores.link.run(scripts.RECEIVE, wanted, said) == once
    assert (await stores.broker.depths([POOL]))[POOL] == Depth(2, 2)


async def test_an_empty_queue_rings_when_it_has_a_message(stores: Stores) -> None:
    rung: list[int] = []
    await stores.broker.listen(POOL, lambda: rung.append(1))
    before = len(rung)
    await stores.broker.publish([parcel(), parcel()])
    await stores.broker.length(NORMAL)
    assert len(rung) > before


async def test_what_is_given_back_or_restored_rings_too(stores: Stores) -> None:
    await stores.broker.publish([parcel()])
    rung: list[int] = []
    await stores.broker.listen(POOL, lambda: rung.append(1))
    [delivery] = await stores.broker.receive(POOL, 1, now=1.0)
    rung.clear()
    await stores.broker.give_back(POOL, [delivery.tag])
    await stores.broker.receive(POOL, 1, now=1.0)
    assert len(rung) == 1
    await stores.broker.restore(POOL, before=2.0, limit=1)
    await stores.broker.length(NORMAL)
    assert len(rung) == 2


async def test_the_oldest_is_the_one_that_is_taken_next(stores: Stores) -> None:
    assert await stores.broker.oldest(NORMAL) is None
    await stores.broker.publish([parcel(queued_at=1000.25), parcel(queued_at=2000.0)])
    assert await stores.broker.oldest(NORMAL) == 1000.25
    await stores.broker.receive(POOL, 1, now=1.0)
    assert await stores.broker.oldest(NORMAL) == 2000.0


@pytest.mark.parametrize(
    "junk", [b'{"body":"","headers":{}}', b"\x00\xff junk", b"null", b"7", b'{"queued_at":"x"}', b""]
)
async def test_a_message_of_another_producer_counts_as_the_oldest_of_all(stores: Stores, junk: bytes) -> None:
    await stores.link.call("LPUSH", keys.waiting(NORMAL), junk)
    assert await stores.broker.oldest(NORMAL) == 0.0


@pytest.mark.parametrize("junk", [b"\x00\xff junk\n\n", b"null", b"", b'"quote'])
async def test_bytes_that_are_no_message_travel_whole(stores: Stores, junk: bytes) -> None:
    await stores.link.call("LPUSH", keys.waiting(NORMAL), junk)
    [delivery] = await stores.broker.receive(POOL, 5, now=1.0)
    assert (delivery.queue, delivery.data) == (NORMAL, junk)
    await stores.broker.give_back(POOL, [delivery.tag])
    assert [delivery.data for delivery in await stores.broker.receive(POOL, 5, now=1.0)] == [junk]


async def test_touching_keeps_what_is_in_flight_and_revives_nothing(stores: Stores) -> None:
    await stores.broker.publish([parcel()])
    [delivery] = await stores.broker.receive(POOL, 1, now=1.0)
    await stores.broker.touch(POOL, [delivery.tag, "gone"], now=4e9)
    await stores.broker.touch(POOL, [], now=4e9)
    index = keys.unacked_index(POOL)
    assert await stores.link.call("ZRANGE", index, 0, -1, "WITHSCORES") == [[delivery.tag.encode(), 4e9]]
    await stores.broker.acknowledge(POOL, [delivery.tag])
    await stores.broker.touch(POOL, [delivery.tag], now=4e9)
    assert await stores.link.call("ZCARD", index) == 0


async def test_publishing_and_acknowledging_nothing_is_no_error(stores: Stores) -> None:
    await stores.broker.publish([])
    await stores.broker.acknowledge(POOL, [])


async def test_text_of_any_language_survives(stores: Stores) -> None:
    text = 'quote " backslash \\ newline \n 日本 😀 \x00'
    await stores.broker.publish([Parcel(NORMAL, "r", orjson.dumps({"text": text}).decode(), 0.0)])
    [delivery] = await stores.broker.receive(POOL, 1, now=1.0)
    assert orjson.loads(delivery.data)["message"] == {"text": text}


async def test_a_server_that_is_away_is_a_store_error(unused_port: int) -> None:
    link = Link(f"redis://127.0.0.1:{unused_port}/0", pauses=(0.01,))
    with pytest.raises(Unreachable, match=f"127.0.0.1:{unused_port}"):
        await RedisBroker(link).publish([parcel()])
    assert issubclass(Unreachable, StoreError)
    await link.close()

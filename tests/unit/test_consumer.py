"""The consumer on the in-memory broker: what it takes, what it gives back, and how it ends."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import consumer as module
from tasks.attempt import Disposition
from tasks.consumer import Consumer, opened
from tasks.errors import StoreError
from tasks.stores.broker import Delivery, Depth, MemoryBroker, Parcel, envelope
from tests.support.world import Clock

POOL = "agents.responder"
HIGH = f"{POOL}.high"


class Scripted:
    """A hop that does what the message says."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.seen: list[dict[str, Any]] = []
        self.most = 0
        self.at_once = 0
        self.go = asyncio.Event()

    async def handle(self, raw: dict[str, Any], tag: str) -> Disposition:
        assert tag
        self.seen.append(raw)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            return await self._do(raw.get("do"))
        finally:
            self.at_once -= 1

    async def _do(self, what: Any) -> Disposition:
        match what:
            case "requeue":
                return Disposition.REQUEUE
            case "raise":
                raise OSError("stores are away")
            case "wait":
                await self.go.wait()
            case "stall":
                await self._stall()
            case "hand back":
                with contextlib.suppress(asyncio.CancelledError):
                    await self._stall()
        return Disposition.ACK

    async def _stall(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            self.log.append("handed back")
            raise


class Pool:
    """A running consumer and what is around it."""

    def __init__(self, concurrency: int = 16) -> None:
        self.broker = MemoryBroker()
        self.hop = Scripted()
        self.clock = Clock()
        self.consumer = Consumer(
            POOL, self.broker, self.hop.handle, concurrency=concurrency, visibility_seconds=60, now=self.clock
        )
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.consumer.run())

    async def put(self, *what: str, queue: str = POOL) -> None:
        await self.broker.publish([Parcel(queue, "r", orjson.dumps({"do": do}).decode(), 1.0) for do in what])

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)

    async def depth(self) -> Depth:
        return (await self.broker.depths([POOL]))[POOL]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FAULT_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 30.0)  # nothing here may depend on looking
    monkeypatch.setattr(module, "CANCEL_MARGIN_SECONDS", 1.0)


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool()
    yield pool
    pool.hop.go.set()
    await pool.consumer.drain(2.0)
    if pool.task:
        await pool.task


async def test_a_message_that_is_done_is_acknowledged(pool: Pool) -> None:
    pool.start()
    await pool.put("answer")
    await pool.until(lambda: bool(pool.hop.seen) and not pool.broker.running[POOL])
    assert pool.hop.seen == [{"do": "answer"}]
    assert await pool.depth() == Depth(0, 0)


async def test_what_waited_before_the_start_is_taken(pool: Pool) -> None:
    await pool.put("answer", "answer")
    pool.start()
    await pool.until(lambda: len(pool.hop.seen) == 2)


async def test_a_message_that_came_without_ringing_is_found(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    pool.start()
    await asyncio.sleep(0)
    pool.broker.queues[POOL].append(Parcel(POOL, "r", "{}", 1.0))
    await pool.until(lambda: len(pool.hop.seen) == 1)


async def test_the_high_queue_goes_first(pool: Pool) -> None:
    await pool.put("normal")
    await pool.put("high", queue=HIGH)
    pool.start()
    await pool.until(lambda: len(pool.hop.seen) == 2)
    assert [raw["do"] for raw in pool.hop.seen] == ["high", "normal"]


async def test_where_calls_are_paid_for_slots_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLOTS_SECONDS", 0.05)
    broker, asked = MemoryBroker(), []
    broker.batch = 4
    receive = broker.receive

    async def spied(pool: str, most: int, *, now: float) -> list[Delivery]:
        asked.append(most)
        return await receive(pool, most, now=now)

    async def handle(raw: dict[str, Any], _tag: str) -> Disposition:
        await asyncio.sleep(raw["seconds"])
        return Disposition.ACK

    monkeypatch.setattr(broker, "receive", spied)
    for number in range(8):
        message = orjson.dumps({"seconds": 0.01 * (number % 4)}).decode()
        await broker.publish([Parcel(POOL, "r", message, 1.0)])
    consumer = Consumer(POOL, broker, handle, concurrency=4, visibility_seconds=60, now=Clock())
    running = asyncio.create_task(consumer.run())
    async with asyncio.timeout(5):
        while broker.queues[POOL] or broker.running[POOL]:
            await asyncio.sleep(0.01)
    assert asked[:2] == [4, 4]  # not one for each slot that became free
    consumer.stop()
    await running


async def test_no_more_than_the_concurrency_runs_and_the_rest_stays_visible() -> None:
    pool = Pool(concurrency=3)
    await pool.put(*["wait"] * 10)
    pool.start()
    await pool.until(lambda: pool.hop.at_once == 3)
    assert await pool.depth() == Depth(7, 3)
    pool.hop.go.set()
    await pool.until(lambda: len(pool.hop.seen) == 10 and not pool.broker.running[POOL])
    assert pool.hop.most == 3
    await pool.consumer.drain(2.0)


async def test_what_the_hop_hands_back_goes_to_the_end_of_its_queue(pool: Pool) -> None:
    await pool.put("requeue", "wait")
    pool.start()
    await pool.until(lambda: len(pool.hop.seen) >= 4)
    assert [raw["do"] for raw in pool.hop.seen[:2]] == ["requeue", "wait"]
    assert {raw["do"] for raw in pool.hop.seen[2:]} == {"requeue"}


async def test_what_the_hop_fails_on_is_given_back(pool: Pool) -> None:
    await pool.put("raise")
    pool.start()
    await pool.until(lambda: len(pool.hop.seen) >= 3)
    pool.consumer.stop()
    await pool.consumer.drain(2.0)
    assert await pool.depth() == Depth(1, 0)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"message":[1]}', b"5", b"null", b"\xff\x00"])
async def test_what_is_no_message_reaches_the_hop_whole(
    pool: Pool, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.stores.broker.envelope", lambda _parcel: data)
    await pool.put("junk")
    pool.start()
    await pool.until(lambda: len(pool.hop.seen) == 1)
    assert base64.b64decode(pool.hop.seen[0]["unreadable"]) == data


@given(st.binary(max_size=200))
def test_any_bytes_can_be_opened(data: bytes) -> None:
    assert isinstance(opened(data), dict)


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**53), 2**53) | st.none()))
def test_what_is_put_into_an_envelope_comes_out(message: dict[str, Any]) -> None:
    assert opened(envelope(Parcel("q", "r", orjson.dumps(message).decode(), 1.5))) == message


async def test_a_broker_that_is_away_is_tried_again(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    pool.broker.fail = StoreError("away")
    pool.start()
    await asyncio.sleep(0.03)
    pool.broker.fail = None
    await pool.put("answer")
    await pool.until(lambda: len(pool.hop.seen) == 1)


async def test_an_acknowledgement_that_fails_stops_nobody(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> None:
        raise StoreError("away")

    monkeypatch.setattr(pool.broker, "acknowledge", fail)
    pool.start()
    await pool.put("answer")
    await pool.until(lambda: len(pool.hop.seen) == 1)
    await pool.put("answer")
    await pool.until(lambda: len(pool.hop.seen) == 2)


async def test_messages_of_a_dead_worker_come_back(pool: Pool) -> None:
    await pool.put("answer")
    await pool.broker.receive(POOL, 1, now=pool.clock.seconds - 61)
    pool.start()
    await pool.until(lambda: len(pool.hop.seen) == 1)


async def test_messages_of_a_live_worker_stay_with_it(pool: Pool) -> None:
    await pool.put("answer")
    await pool.broker.receive(POOL, 1, now=pool.clock.seconds - 59)
    pool.start()
    await asyncio.sleep(0.02)
    assert await pool.depth() == Depth(0, 1)


async def test_draining_finishes_what_runs_and_takes_nothing_new(pool: Pool) -> None:
    await pool.put("wait", "wait", "wait")
    pool.start()
    await pool.until(lambda: pool.hop.at_once == 3)
    pool.consumer.stop()
    await pool.put("answer")
    asyncio.get_running_loop().call_later(0.02, pool.hop.go.set)
    await pool.consumer.drain(5.0)
    assert await pool.depth() == Depth(1, 0)
    assert len(pool.hop.seen) == 3


async def test_a_consumer_without_work_drains_at_once(pool: Pool) -> None:
    pool.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(1):
        await pool.consumer.drain(30)


async def test_work_that_outlasts_the_grace_period_is_cancelled_and_given_back(pool: Pool) -> None:
    await pool.put("answer", "stall")
    pool.start()
    await pool.until(lambda: len(pool.hop.seen) == 2)
    await pool.consumer.drain(1.0)
    assert pool.hop.log == ["handed back"]
    assert await pool.depth() == Depth(1, 0)
    assert pool.consumer.running == 0


async def test_work_that_handed_its_request_back_when_cancelled_is_acknowledged(pool: Pool) -> None:
    await pool.put("hand back")
    pool.start()
    await pool.until(lambda: len(pool.hop.seen) == 1)
    await pool.consumer.drain(1.0)
    assert pool.hop.log == ["handed back"]
    assert await pool.depth() == Depth(0, 0)


async def test_a_fault_of_the_broker_ends_neither_taking_nor_restoring(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "_RESTORE_SECONDS", 0.01)
    pool.broker.fail = TypeError("a fault of our own")
    pool.start()
    await asyncio.sleep(0.05)
    pool.broker.fail = None
    await pool.put("answer", "answer")
    await pool.broker.receive(POOL, 1, now=pool.clock.seconds - 61)
    await pool.until(lambda: len(pool.hop.seen) == 2)


async def test_what_failed_just_before_the_end_is_given_back(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FAULT_PAUSE_SECONDS", 30.0)
    await pool.put("raise")
    pool.start()
    await pool.until(lambda: len(pool.hop.seen) == 1)
    await pool.consumer.drain(1.0)
    assert await pool.depth() == Depth(1, 0)

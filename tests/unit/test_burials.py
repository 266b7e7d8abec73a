"""What SQS itself puts with the dead letters: its request ends as failed, and nothing else is touched."""

from collections.abc import AsyncIterator

import orjson
import pytest

from tasks import keys
from tasks.agents.fake import FakeRunner
from tasks.contracts.request import Request
from tasks.contracts.result import Status
from tasks.errors import ModelError, StoreError
from tasks.settings import AgentSettings, Settings
from tasks.stores.broker import MemoryBroker, Parcel
from tasks.sweep import Swept
from tests.support import trust
from tests.support.world import RESPONDER, World

DEAD = keys.DEAD_LETTERS


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.broker = MemoryBroker(buries=True)
    made.settings = Settings(agents=(AgentSettings(type="responder"),))
    yield made
    await made.close()


async def bury(world: World, queue: str) -> None:
    """Move the message of ``queue`` as SQS does: as it is."""
    parcel = world.broker.take(queue)
    await world.broker.publish([Parcel(DEAD, parcel.ref, parcel.message, parcel.queued_at)])


def letters(world: World) -> list[str]:
    return [parcel.ref for parcel in world.broker.queues[DEAD]]


async def status(world: World, asked: Request) -> Status | None:
    result = await world.result(asked)
    return result.status if result else None


@pytest.mark.parametrize("queue", ["requests", RESPONDER])
async def test_a_buried_message_ends_its_request_as_failed(world: World, queue: str) -> None:
    asked = await (world.accept() if queue == "requests" else world.routed())
    await bury(world, queue)
    other = await world.accept("another", id="other")  # the queue is never empty: nothing looks lost
    sweeper = world.sweeper()
    assert await sweeper.run_once() == Swept(buried=1)
    result = await world.result(asked)
    assert result is not None
    assert result.error is not None
    assert (result.status, result.error.code) == (Status.FAILED, "attempts_exhausted")
    assert letters(world) == [f"default/{asked.id}"]
    assert (await world.actions(asked))["request.dead_lettered"] == 1
    assert await sweeper.run_once() == Swept()
    assert await status(world, other) is None


async def test_what_an_attempt_holds_is_left_to_it(world: World) -> None:
    asked = await world.routed()
    parcel = world.broker.queues[RESPONDER][0]
    work = world.work(FakeRunner(ModelError("busy")))
    row = world.register.rows[f"default/{asked.id}"]
    world.register.rows[f"default/{asked.id}"] = row.changed(holder="somebody", lease_end=world.clock.seconds + 60)
    await bury(world, RESPONDER)
    sweeper = world.sweeper()
    assert await sweeper.run_once() == Swept()
    assert letters(world) == [parcel.ref]
    world.register.rows[f"default/{asked.id}"] = row
    world.broker.queues[DEAD].clear()
    await world.broker.publish([parcel])
    await world.deliver(work, RESPONDER)  # it waits for its next attempt now
    await world.broker.publish([Parcel(DEAD, parcel.ref, parcel.message, parcel.queued_at)])
    assert await world.sweeper().run_once() == Swept()
    assert letters(world) == []
    await world.sweep_until_published(RESPONDER)
    await world.deliver(world.work(), RESPONDER)
    assert await status(world, asked) is Status.SUCCEEDED


async def test_a_copy_that_was_left_behind_is_taken_away(world: World) -> None:
    asked = await world.accept()
    first = world.broker.queues["requests"][0]
    await world.deliver(world.route(), "requests")
    await world.broker.publish([Parcel(DEAD, first.ref, first.message, first.queued_at)])
    await world.sweeper().run_once()
    assert letters(world) == []
    second = world.broker.queues[RESPONDER][0]
    await world.deliver(world.work(), RESPONDER)
    await world.broker.publish([Parcel(DEAD, second.ref, second.message, second.queued_at)])
    await world.sweeper().run_once()
    assert letters(world) == []
    assert await status(world, asked) is Status.SUCCEEDED


async def test_letters_of_the_tail_and_of_nobody_stay(world: World) -> None:
    world.gate = trust.gate(trust.keys(), world.clock)
    asked = await world.routed()
    work = world.work(FakeRunner(ModelError("busy")))
    for attempt in range(world.settings.queue.attempts):
        if attempt:
            await world.sweep_until_published(RESPONDER)
        await world.deliver(work, RESPONDER)
    forged = orjson.loads(world.broker.queues[DEAD][0].message) | {"id": "another"}
    await world.broker.publish([Parcel(DEAD, "x", orjson.dumps(forged).decode(), 1.0), Parcel(DEAD, "x", "7", 1.0)])
    assert await world.sweeper().run_once() == Swept()
    assert letters(world) == [f"default/{asked.id}", "x", "x"]


async def test_of_two_letters_of_one_request_one_stays(world: World) -> None:
    """The broker buried the first message while the sweeper had published another, whose attempts were the last."""
    asked = await world.routed()
    first = world.broker.queues[RESPONDER][0]
    work = world.work(FakeRunner(ModelError("busy")))
    for attempt in range(world.settings.queue.attempts):
        if attempt:
            await world.sweep_until_published(RESPONDER)
        await world.deliver(work, RESPONDER)
    await world.broker.publish([Parcel(DEAD, first.ref, first.message, first.queued_at)])
    assert len(letters(world)) == 2
    assert await world.sweeper().run_once() == Swept()
    assert letters(world) == [f"default/{asked.id}"]


async def test_it_looks_again_only_when_there_are_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.broker.publish([Parcel(DEAD, "x", "7", 1.0)])
    sweeper = world.sweeper()
    await sweeper.run_once()

    async def never(*_: object, **__: object) -> None:
        raise StoreError("looked")

    monkeypatch.setattr(world.broker, "letters", never)
    await sweeper.run_once()
    await world.broker.publish([Parcel(DEAD, "x", "8", 1.0)])
    with pytest.raises(StoreError, match="looked"):
        await sweeper.run_once()


async def test_a_broker_that_buries_nothing_is_not_looked_at(world: World) -> None:
    world.broker.buries = False
    asked = await world.accept()
    await bury(world, "requests")
    assert (await world.sweeper().run_once()).buried == 0
    assert await status(world, asked) is None

"""The sweeper puts back what fell, ends what is overdue, and leaves a healthy backlog alone."""

import asyncio
from datetime import timedelta

import pytest

from tasks.attempt import Disposition
from tasks.contracts.result import Status
from tasks.contracts.row import Row
from tasks.errors import StoreError
from tasks.stores.broker import Parcel
from tasks.sweep import Swept
from tests.support import build
from tests.support.register_contract import begin
from tests.support.world import RESPONDER, Died, Steps, World

REQUESTS = "requests"


async def backlog(world: World, count: int) -> list[Row]:
    """Open and publish rows, one each millisecond."""
    rows = [build.row(f"r{index}", recorded=True) for index in range(count)]
    await world.register.open(rows, due=build.NOW + 10)
    for row in rows:
        world.clock.advance(0.001)
        await world.broker.publish([Parcel(REQUESTS, build.ref(row), "{}", world.clock.seconds)])
        await world.register.published([(build.ref(row), REQUESTS, 0)], now=world.clock.seconds)
    return rows


def queued(world: World, queue: str = REQUESTS) -> list[str]:
    return [parcel.ref for parcel in world.broker.queues[queue]]


async def test_nothing_to_do(world: World) -> None:
    assert await world.sweeper().run_once() == Swept()


async def test_a_row_that_the_door_did_not_publish_is_recorded_and_published(world: World) -> None:
    world.audit_store.free.clear()
    door = asyncio.create_task(world.accept(id="r1"))
    while not world.audit_store.writes:
        await asyncio.sleep(0)
    door.cancel()  # the door dies after the register, before the audit
    with pytest.raises(asyncio.CancelledError):
        await door
    for stream in world._streams:
        assert stream._task is not None
        stream._task.cancel()
    world._streams.clear()
    world.audit_store.free.set()
    sweeper = world.sweeper()
    assert await sweeper.run_once() == Swept()
    world.clock.advance(world.settings.leases.unpublished_seconds)
    assert await sweeper.run_once() == Swept(unpublished=1)
    assert queued(world) == ["default/r1"]
    asked = build.request(id="r1")
    assert await world.actions(asked) == {"request.accepted": 1, "request.reenqueued": 1}
    accepted = next(record for record in await world.records(asked) if record.action == "request.accepted")
    assert accepted.actor == "sweeper"
    assert "recovered" in accepted.reason
    assert await world.deliver(world.route(), REQUESTS) is Disposition.ACK


async def test_a_retry_whose_time_has_come_is_published_without_a_word(world: World) -> None:
    asked = await world.accept(id="r1")
    row = world.register.rows["default/r1"]
    world.broker.take(REQUESTS)

    await begin(world.register, row)
    await world.register.postpone("default/r1", "h1", due=world.clock.seconds + 4, counted=True)
    world.clock.advance(3)
    assert await world.sweeper().run_once() == Swept()
    world.clock.advance(1)
    assert await world.sweeper().run_once() == Swept(unpublished=1)
    assert await world.actions(asked) == {"request.accepted": 1}


async def test_a_healthy_backlog_is_left_alone_however_old_it_is(world: World) -> None:
    await backlog(world, 5000)
    sweeper = world.sweeper()
    for _ in range(4):
        world.clock.advance(600)
        assert await sweeper.run_once() == Swept()
        for _ in range(10):  # workers take from the front
            parcel = world.broker.take(REQUESTS)
            row = world.register.rows.pop(parcel.ref)
            world.register._queued[REQUESTS].pop(parcel.ref)
            assert not row.holder
    assert len(queued(world)) == 4960


async def test_a_message_that_the_broker_lost_is_found_in_two_passes(world: World) -> None:
    await backlog(world, 10)
    world.broker.take(REQUESTS)
    sweeper = world.sweeper()
    world.clock.advance(world.settings.leases.lost_seconds)
    assert await sweeper.run_once() == Swept()
    world.clock.advance(2)
    assert await sweeper.run_once() == Swept(lost=0)  # within a second of the oldest that waits: may be the clocks
    for _ in range(9):
        world.broker.take(REQUESTS)
    assert await sweeper.run_once() == Swept()
    assert (await sweeper.run_once()).lost == 10
    assert sorted(queued(world)) == sorted(f"default/r{index}" for index in range(10))
    assert (await world.actions(build.request(id="r0")))["request.reenqueued"] == 1


async def test_a_queue_is_asked_only_where_something_may_be_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    oldest = world.broker.oldest

    async def spied(queue: str) -> float | None:
        asked.append(queue)
        return await oldest(queue)

    monkeypatch.setattr(world.broker, "oldest", spied)
    sweeper = world.sweeper()
    await sweeper.run_once()
    await backlog(world, 2)
    await sweeper.run_once()
    assert asked == []
    world.clock.advance(world.settings.leases.lost_seconds + 1)
    await sweeper.run_once()
    assert asked == [REQUESTS]


async def test_only_what_the_queue_has_moved_past_is_lost(world: World) -> None:
    await backlog(world, 2)
    lost = world.broker.take(REQUESTS)
    world.clock.advance(5)
    late = build.row("late", recorded=True)
    await world.register.open([late], due=world.clock.seconds + 10)
    await world.broker.publish([Parcel(REQUESTS, "default/late", "{}", world.clock.seconds)])
    await world.register.published([("default/late", REQUESTS, 0)], now=world.clock.seconds)
    world.broker.take(REQUESTS)
    world.clock.advance(60)
    sweeper = world.sweeper()
    await sweeper.run_once()
    assert (await sweeper.run_once()).lost == 2
    assert queued(world) == ["default/late", lost.ref, "default/r1"]


async def test_a_message_that_was_popped_a_moment_ago_is_not_lost(world: World) -> None:
    [row] = await backlog(world, 1)
    world.clock.advance(60)
    world.broker.take(REQUESTS)
    sweeper = world.sweeper()
    await sweeper.run_once()

    await begin(world.register, row, now=world.clock.seconds)
    assert await sweeper.run_once() == Swept()


async def test_a_lapsed_lease_is_published_again_and_no_sooner(world: World) -> None:
    asked = await world.routed(id="r1")
    with pytest.raises(Died):
        await world.deliver(world.work(passed=Steps("begin")), RESPONDER)
    leases = world.settings.leases
    world.clock.advance(leases.lease_seconds + 2 * leases.heartbeat_seconds - 0.1)
    assert await world.sweeper().run_once() == Swept()
    world.clock.advance(0.1)
    assert await world.sweeper().run_once() == Swept(lapsed=1)
    assert queued(world, RESPONDER) == ["default/r1"]
    again = [record for record in await world.records(asked) if record.action == "request.reenqueued"]
    assert [(record.reason, record.details["attempts"]) for record in again] == [("lapsed", 1)]


async def test_what_waits_past_its_deadline_expires(world: World) -> None:
    asked = await world.accept(deadline=build.EPOCH.replace(minute=1))
    sweeper = world.sweeper()
    world.clock.advance(59)
    assert await sweeper.run_once() == Swept()
    world.clock.advance(1)
    assert (await sweeper.run_once()).expired == 1
    result = await world.result(asked)
    assert result is not None
    assert (result.status, result.error and result.error.code) == (Status.EXPIRED, "expired")
    assert (await world.actions(asked))["request.expired"] == 1
    assert world.register.rows == {}
    assert await world.deliver(world.route(), REQUESTS) is Disposition.ACK
    assert not world.broker.queues[RESPONDER]


async def test_what_runs_past_its_deadline_is_left_to_its_attempt(world: World) -> None:
    await world.accept(id="r1", deadline=build.EPOCH.replace(minute=1))

    world.clock.advance(60)
    await begin(world.register, world.register.rows["default/r1"], now=world.clock.seconds)
    assert await world.sweeper().run_once() == Swept()


async def test_a_parked_turn_past_its_deadline_expires_and_the_next_takes_its_place(world: World) -> None:
    await world.routed("one", id="t1", session_id="s", deadline=build.EPOCH.replace(minute=1))
    await world.routed("two", id="t2", session_id="s")
    world.broker.queues[RESPONDER].reverse()
    await world.deliver(world.work(), RESPONDER)  # parks the second
    world.clock.advance(60)
    await world.sweeper().run_once()
    assert "default/t2" in queued(world, RESPONDER)
    assert set(world.register.rows) == {"default/t2"}


async def test_an_expiry_that_dies_half_way_is_done_by_the_next(world: World) -> None:
    asked = await world.accept(deadline=build.EPOCH.replace(minute=1))
    world.clock.advance(60)
    with pytest.raises(Died):
        await world.sweeper(Steps("result")).run_once()
    world.clock.advance(60)
    assert (await world.sweeper().run_once()).expired == 1
    assert world.register.rows == {}
    assert (await world.actions(asked))["attempt.discarded"] == 1


async def test_a_broker_that_fails_loses_nothing(world: World) -> None:
    await world.accept(id="r1")
    world.broker.take(REQUESTS)
    world.clock.advance(60)
    sweeper = world.sweeper()
    await sweeper.run_once()
    world.broker.fail = StoreError("away")
    with pytest.raises(StoreError):
        await sweeper.run_once()
    world.broker.fail = None
    world.clock.advance(world.settings.leases.unpublished_seconds)
    assert (await sweeper.run_once()).unpublished == 1
    assert queued(world) == ["default/r1"]


async def test_two_sweepers_put_nothing_back_twice(world: World) -> None:
    await world.accept(id="r1")
    world.broker.take(REQUESTS)
    world.clock.advance(60)
    one, two = world.sweeper(), world.sweeper()
    for sweeper in (one, two, one, two):
        await sweeper.run_once()
    assert queued(world) == ["default/r1"]


async def test_a_message_that_somebody_always_takes_away_ends_as_a_dead_letter(world: World) -> None:
    asked = await world.accept(id="r1")
    sweeper = world.sweeper()
    for _ in range(40):
        if await world.result(asked):
            break
        world.broker.queues[REQUESTS].clear()  # it is gone, and nobody has begun
        world.clock.advance(world.settings.leases.unpublished_seconds)
        await sweeper.run_once()
    result = await world.result(asked)
    assert result is not None
    assert (result.status, result.error.code if result.error else "") == (Status.FAILED, "attempts_exhausted")
    assert queued(world, "dead-letters") == ["default/r1"]
    assert world.register.rows == {}
    assert (await world.actions(asked))["request.reenqueued"] == world.settings.queue.attempts + 1


async def test_a_message_from_the_future_makes_nothing_look_lost(world: World) -> None:
    await backlog(world, 3)
    for _ in range(3):
        world.broker.take(REQUESTS)
    await world.broker.publish([Parcel(REQUESTS, "default/ahead", "{}", world.clock.seconds + 86_400)])
    sweeper = world.sweeper()
    for _ in range(3):
        world.clock.advance(60)
        assert await sweeper.run_once() == Swept()


async def test_one_unreadable_row_does_not_stop_the_others_from_expiring(world: World) -> None:
    newer = build.row("newer", message='{"schema_version":"9.0"}', deadline=world.clock.seconds + 1)
    await world.register.open([newer], due=world.clock.seconds + 1000)
    asked = await world.accept(id="r1", deadline=world.clock() + timedelta(seconds=5))
    world.clock.advance(6)
    assert (await world.sweeper().run_once()).expired == 1
    result = await world.result(asked)
    assert result is not None
    assert result.status is Status.EXPIRED
    standing = await world.register.get("default/newer")
    assert standing is not None
    assert standing.holder == ""

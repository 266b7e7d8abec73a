"""One heartbeat keeps everything alive that runs here, and stops what another attempt has taken."""

import asyncio

import pytest

from tasks import runtime
from tasks.contracts.row import Row
from tasks.errors import LeaseLost, ModelError, RequestEnded, StoreError
from tasks.heartbeat import Heartbeat
from tasks.stores.broker import MemoryBroker
from tasks.stores.register import Lease, Verdict
from tests.support import build
from tests.support.register_contract import begin
from tests.support.world import RESPONDER, World

LEASE = 15.0


class Touched(MemoryBroker):
    """Remembers what was touched."""

    def __init__(self) -> None:
        super().__init__()
        self.touched: list[tuple[str, list[str], float]] = []

    async def touch(self, pool: str, tags: object, *, now: float) -> None:
        self.touched.append((pool, list(tags), now))  # type: ignore[call-overload]


@pytest.fixture
async def running(world: World) -> Row:
    """A row whose lease ``h1`` holds."""
    world.broker = Touched()
    row = build.row("r1")
    await world.register.open([row], due=build.NOW)
    assert (await begin(world.register, row, "h1", lease=LEASE)).verdict is Verdict.STARTED
    return row


async def test_a_beat_extends_leases_and_in_flight_marks(world: World, running: Row) -> None:
    heartbeat = world.heartbeat()
    async with heartbeat.holding(Lease("default/r1", "h1"), "tag-1"):
        world.clock.advance(5)
        await heartbeat.beat()
        row = await world.register.get("default/r1")
        assert row is not None
        assert row.lease_end == build.NOW + 5 + LEASE
        assert world.broker.touched == [(RESPONDER, ["tag-1"], build.NOW + 5)]


async def test_outside_the_block_nothing_is_extended(world: World, running: Row) -> None:
    heartbeat = world.heartbeat()
    async with heartbeat.holding(Lease("default/r1", "h1"), "tag-1"):
        pass
    world.clock.advance(5)
    await heartbeat.beat()
    row = await world.register.get("default/r1")
    assert row is not None
    assert row.lease_end == build.NOW + LEASE
    assert world.broker.touched == []


async def test_what_is_released_is_neither_extended_nor_lost(world: World, running: Row) -> None:
    heartbeat = world.heartbeat()
    async with heartbeat.holding(Lease("default/r1", "h1"), "tag-1"):
        heartbeat.release("h1")
        await begin(world.register, running, "h2", now=build.NOW + 60)
        await heartbeat.beat()
        await asyncio.sleep(0)
    heartbeat.release("nobody")


async def test_an_attempt_whose_lease_another_took_is_cancelled(world: World, running: Row) -> None:
    heartbeat = world.heartbeat()
    inside = asyncio.Event()

    async def attempt(holder: str) -> str:
        try:
            async with heartbeat.holding(Lease("default/r1", holder), holder):
                inside.set()
                await asyncio.sleep(30)
        except LeaseLost:
            await asyncio.sleep(0)  # the task lives on: its cancellation is taken back
            return "lost"
        return "done"

    task = asyncio.create_task(attempt("h1"))
    await inside.wait()
    assert (await begin(world.register, running, "h2", now=build.NOW + 60)).verdict is Verdict.STARTED
    await heartbeat.beat()
    assert await task == "lost"
    assert not task.cancelling()


async def test_only_the_lost_attempt_is_cancelled(world: World, running: Row) -> None:
    other = build.row("r2")
    await world.register.open([other], due=build.NOW)
    await begin(world.register, other, "h3")
    heartbeat = world.heartbeat()
    released = asyncio.Event()

    async def attempt(ref: str, holder: str) -> str:
        try:
            async with heartbeat.holding(Lease(ref, holder), holder):
                await released.wait()
        except LeaseLost:
            return "lost"
        return "done"

    tasks = [asyncio.create_task(attempt(f"default/{name}", holder)) for name, holder in (("r1", "h1"), ("r2", "h3"))]
    await asyncio.sleep(0)
    await begin(world.register, running, "h2", now=build.NOW + 60)
    await heartbeat.beat()
    released.set()
    assert await asyncio.gather(*tasks) == ["lost", "done"]


async def ended(world: World, row: Row) -> None:
    await world.register.clear("default/r1", revision=1, digest=row.digest, now=build.NOW, remember=60)


async def test_an_attempt_whose_request_has_ended_is_cancelled_with_a_reason_of_its_own(
    world: World, running: Row
) -> None:
    heartbeat = world.heartbeat()

    async def attempt() -> None:
        async with heartbeat.holding(Lease("default/r1", "h1"), "t"):
            heartbeat.check("h1")
            await ended(world, running)
            await heartbeat.beat()
            with pytest.raises(RequestEnded):
                heartbeat.check("h1")
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError as error:
                raise ModelError("cancelled from within") from error

    task = asyncio.create_task(attempt())
    with pytest.raises(RequestEnded):
        await task
    assert not task.cancelling()
    with pytest.raises(LeaseLost):
        heartbeat.check("h1")  # what the attempt left behind


@pytest.mark.parametrize("before", ["ending", "release"])
async def test_an_attempt_that_ends_its_request_itself_is_let_be(world: World, running: Row, before: str) -> None:
    heartbeat = world.heartbeat()
    async with heartbeat.holding(Lease("default/r1", "h1"), "t"):
        getattr(heartbeat, before)("h1")
        await ended(world, running)
        await heartbeat.beat()
        await asyncio.sleep(0)
        heartbeat.check("h1")
    heartbeat.ending("nobody")


async def test_a_row_that_the_register_lost_stops_nobody(world: World, running: Row) -> None:
    heartbeat = world.heartbeat()
    async with heartbeat.holding(Lease("default/r1", "h1"), "t"):
        world.register.rows.clear()
        await heartbeat.beat()
        await asyncio.sleep(0)


async def test_a_worker_that_is_told_to_stop_is_no_lost_lease(world: World, running: Row) -> None:
    heartbeat = world.heartbeat()
    inside = asyncio.Event()

    async def attempt() -> None:
        async with heartbeat.holding(Lease("default/r1", "h1"), "t"):
            inside.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(attempt())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_worker_is_idle_once_it_had_nothing_for_a_while(
    world: World, running: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_IDLE_LOOK_SECONDS", 0.01)
    worker, heartbeat = object.__new__(runtime.Worker), world.heartbeat()
    worker._served = [runtime._Served(RESPONDER, None, heartbeat, None)]  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    idle = asyncio.create_task(worker.until_idle(0.2))
    async with heartbeat.holding(Lease("default/r1", "h1"), "tag-1"):
        await asyncio.sleep(0.4)
        assert not idle.done()
    ended = loop.time()
    await asyncio.sleep(0.1)
    async with heartbeat.holding(Lease("default/r1", "h2"), "tag-2"):
        pass  # shorter than a look, and work all the same
    await idle
    assert loop.time() - ended >= 0.29
    assert heartbeat.work == (2, 0)


async def test_a_store_that_fails_does_not_stop_the_heart(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[int] = []
    thrice = asyncio.Event()

    async def beacon(running: int) -> None:
        beats.append(running)
        if len(beats) == 3:
            thrice.set()
        raise StoreError("away")

    heartbeat = Heartbeat(
        pool=RESPONDER,
        register=world.register,
        broker=world.broker,
        settings=world.settings.leases.changed(heartbeat_seconds=0.001),
        now=world.clock,
        beacon=beacon,
    )
    task = asyncio.create_task(heartbeat.run())
    await asyncio.wait_for(thrice.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

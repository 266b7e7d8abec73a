"""Turns of a session: never lost, doubled or interleaved, whatever Redis forgets and whoever comes back late."""

import asyncio
from typing import Any

import pytest

from handlers.acting import Acting
from handlers.sessions import Sessions
from tasks import keys
from tasks.access.gate import Caller
from tasks.agents.fake import FakeRunner
from tasks.agents.types import AgentAnswer, AgentTask
from tasks.attempt import Disposition
from tasks.contracts.request import Request
from tasks.contracts.session import SessionVersion
from tasks.errors import NotFound
from tasks.stores.broker import MemoryBroker
from tasks.stores.memory_register import MemoryRegister
from tasks.stores.objects import MemoryObjectStore
from tasks.stores.session_cache import MemorySessionCache, Remembered
from tasks.stores.sessions import SessionStore
from tests.support import build
from tests.support.world import RESPONDER, Died, Steps, World


class Talking(FakeRunner):
    """Remembers every text in the session, so that a turn that is lost, doubled or out of place shows."""

    async def run(self, task: AgentTask) -> AgentAnswer:
        self.tasks.append(task)
        said = [*(task.session_state or {}).get("said", []), task.text]
        return AgentAnswer(output=f"heard {' '.join(said)}", model="fake", session_state={"said": said})


class Listed(MemoryObjectStore):
    """Counts what is listed and read."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = 0
        self.got: list[str] = []

    async def get(self, key: str) -> bytes:
        self.got.append(key)
        return await super().get(key)

    async def list(self, prefix: str, *, after: str = "") -> Any:
        async for key in super().list(prefix, after=after):
            self.listed += 1
            yield key


def version(number: int, *, result: Any = "made", **fields: Any) -> SessionVersion:
    made = build.result(session_id="s") if result == "made" else result
    return SessionVersion(tenant="default", session_id="s", version=number, saved_at=build.EPOCH, result=made, **fields)


def lose_redis(world: World) -> None:
    """What FLUSHALL does."""
    world.register = MemoryRegister()
    world.broker = MemoryBroker()
    world.session_cache.entries.clear()


async def said(world: World) -> list[str]:
    latest = await world.sessions.latest("default", "s")
    assert latest is not None
    return list(latest.state.get("said", []))


def sessions_of(world: World) -> Sessions:
    acting = Acting(Caller("olga", ("operator",)), world.gate, world.stream("door"), world.clock)
    return Sessions(acting, sessions=world.sessions, results=world.results)


async def again(world: World, *asked: Request) -> list[str]:
    """Submit the same requests once more, as a producer does that hears of no result."""
    outcomes = await world.door().accept(list(asked), caller=Caller("alice", ("user",)))
    return [outcome.acceptance.value for outcome in outcomes]  # type: ignore[union-attr]


async def drain(world: World, runner: FakeRunner) -> None:
    """Deliver whatever is published until nothing is."""
    while True:
        for queue, hop in (("requests", world.route), (RESPONDER, lambda: world.work(runner))):
            if world.broker.queues[queue]:
                await world.deliver(hop(), queue)
                break
        else:
            return


# The cache ----------------------------------------------------------------------------------------------


async def test_with_a_cache_a_turn_lists_nothing_and_reads_no_version() -> None:
    store, cache = Listed(), MemorySessionCache()
    sessions = SessionStore(store, cache)
    for number in range(1, 301):
        await sessions.create(version(number))
    newest = await sessions.get("default", "s", 300)
    await sessions.keep(newest)
    store.got.clear()
    hint = await sessions.remembered("default", "s")
    assert await sessions.latest("default", "s", hint=hint) is newest
    assert (store.listed, store.got) == (0, [keys.session("default", "s", 301)])


@pytest.mark.parametrize("kept", [1, 2, 40, 99])
async def test_a_stale_cache_is_found_out(kept: int) -> None:
    sessions = SessionStore(Listed(), MemorySessionCache())
    for number in range(1, 101):
        await sessions.create(version(number))
    for hint in (Remembered(kept), Remembered(kept, await sessions.get("default", "s", kept))):
        latest = await sessions.latest("default", "s", hint=hint)
        assert latest is not None
        assert latest.version == 100


async def test_a_hint_at_what_is_not_there_costs_a_listing() -> None:
    store = Listed()
    sessions = SessionStore(store)
    await sessions.create(version(1))
    latest = await sessions.latest("default", "s", hint=Remembered(7))
    assert latest is not None
    assert (latest.version, store.listed) == (1, 1)
    assert await sessions.latest("default", "other", hint=Remembered(1)) is None


async def test_the_cache_is_not_set_back() -> None:
    cache = MemorySessionCache()
    await cache.keep(version(5))
    await cache.keep(version(4))
    found = await cache.get("default", "s")
    assert found is not None
    assert found.number == 5


async def test_a_request_without_a_session_asks_for_none(world: World) -> None:
    store = Listed()
    world.sessions = SessionStore(store, world.session_cache)
    await world.routed()
    await world.deliver(world.work(), RESPONDER)
    assert (store.listed, store.got, world.session_cache.entries) == (0, [], {})


# Redis is lost ------------------------------------------------------------------------------------------


async def test_turns_that_are_submitted_again_after_redis_was_lost_are_each_taken_once_and_in_order(
    world: World,
) -> None:
    runner = Talking()
    asked = [await world.routed(text, session_id="s", id=text) for text in ("one", "two", "three")]
    await world.deliver(world.work(runner), RESPONDER)
    lose_redis(world)
    assert await again(world, *asked) == ["same", "new", "new"]
    await drain(world, runner)
    assert await said(world) == ["one", "two", "three"]
    assert [task.text for task in runner.tasks] == ["one", "two", "three"]


@pytest.mark.parametrize("step", ["begin", "audit", "session", "result", "notify", "clear"])
async def test_a_worker_dies_at_the_moment_redis_is_lost_and_the_later_turn_comes_first(
    world: World, step: str
) -> None:
    """The earlier turn is in the session and has no result: it must not be taken again after the later one."""
    runner = Talking()
    first, second = [await world.routed(text, session_id="s", id=text) for text in ("one", "two")]
    with pytest.raises(Died):
        await world.deliver(world.work(runner, passed=Steps(step)), RESPONDER)
    lose_redis(world)
    await again(world, second)
    await drain(world, runner)
    await again(world, first)
    await drain(world, runner)
    was_saved = step in {"session", "result", "notify", "clear"}
    assert await said(world) == (["one", "two"] if was_saved else ["two", "one"])
    for asked in (first, second):
        assert await world.result(asked)


async def test_a_row_that_was_opened_for_a_turn_that_has_ended_takes_no_second_turn(world: World) -> None:
    """The door looked for a result before there was one, and opened the row after Redis had lost the tombstone."""
    runner = Talking()
    first = await world.routed("one", session_id="s")
    parcel = world.broker.take(RESPONDER)
    world.broker.queues[RESPONDER].append(parcel)
    await world.deliver(world.work(runner), RESPONDER)
    await world.routed("two", session_id="s")
    await world.deliver(world.work(runner), RESPONDER)
    lose_redis(world)
    row = await _row_of(world, first, parcel.message)
    await world.register.open([row], due=0)
    world.broker.queues[RESPONDER].append(parcel)
    assert await world.deliver(world.work(runner), RESPONDER) is Disposition.ACK
    assert await said(world) == ["one", "two"]
    assert await world.register.get(keys.ref("default", first.id)) is None


async def _row_of(world: World, asked: Request, message: str) -> Any:
    return build.row(asked.id, digest=asked.digest(), stage="work", queue=RESPONDER, message=message, session="s")


async def test_a_held_up_worker_comes_back_after_redis_was_lost_and_all_was_done_again(world: World) -> None:
    runner, held, free = Talking(), asyncio.Event(), asyncio.Event()

    class HeldUp(Talking):
        async def run(self, task: AgentTask) -> AgentAnswer:
            answer = await super().run(task)
            held.set()
            await free.wait()
            return answer

    asked = [await world.routed(text, session_id="s", id=text) for text in ("one", "two")]
    late = asyncio.create_task(world.deliver(world.work(HeldUp()), RESPONDER))
    await held.wait()
    lose_redis(world)
    await again(world, *asked)
    await drain(world, runner)
    free.set()
    assert await late is Disposition.ACK
    assert await said(world) == ["one", "two"]
    assert keys.session("default", "s", 3) not in world.data.objects


async def test_the_next_version_follows_only_where_the_result_of_the_one_before_is_there(world: World) -> None:
    left = build.result(session_id="s", request_id="left")
    await world.sessions.create(version(1, result=left, state={"said": ["left"]}))
    await world.routed("two", session_id="s")
    await world.deliver(world.work(Talking()), RESPONDER)
    assert await world.results.get("default", "left") == left
    assert await said(world) == ["left", "two"]


# Deleting -----------------------------------------------------------------------------------------------


async def test_a_deleted_session_begins_anew_and_its_contents_are_gone(world: World) -> None:
    runner = Talking()
    for text in ("one", "two"):
        await world.routed(text, session_id="s")
        await world.deliver(world.work(runner), RESPONDER)
    told: list[tuple[int, int]] = []
    deletion = await sessions_of(world).delete("default", "s", told=lambda *done: told.append(done))
    assert (deletion.version, deletion.deleted_by, told) == (3, "olga", [(1, 2), (2, 2)])
    assert all(b"one" not in data for key, data in world.data.objects.items() if key.startswith("sessions/"))
    [summary] = await sessions_of(world).list("default", deleted=True)
    assert (summary.deleted, await sessions_of(world).list("default")) == (True, [])
    await world.routed("three", session_id="s")
    await world.deliver(world.work(runner), RESPONDER)
    assert await said(world) == ["three"]
    assert keys.session("default", "s", 4) in world.data.objects
    [summary] = await sessions_of(world).list("default")
    assert (summary.session_id, summary.version, summary.deleted) == ("s", 4, False)


async def test_an_attempt_that_still_runs_does_not_bring_a_deleted_session_back(world: World) -> None:
    await world.routed("one", session_id="s")
    await world.deliver(world.work(Talking()), RESPONDER)
    asked = await world.routed("two", session_id="s")

    class Overtaken(Talking):
        async def run(self, task: AgentTask) -> AgentAnswer:
            if len(self.tasks) == 0:
                await sessions_of(world).delete("default", "s", told=lambda *_: None)
            return await super().run(task)

    runner = Overtaken()
    await world.deliver(world.work(runner), RESPONDER)
    assert await world.result(asked) is None
    await world.sweep_until_published(RESPONDER)
    await world.deliver(world.work(runner), RESPONDER)
    assert await said(world) == ["two"]
    result = await world.result(asked)
    assert result is not None
    assert result.output == "heard two"


async def test_deleting_twice_is_deleting_once_and_finishes_what_was_begun(world: World) -> None:
    await world.routed("one", session_id="s")
    await world.deliver(world.work(Talking()), RESPONDER)
    sessions = sessions_of(world)
    deletion = await sessions._deleted("default", "s")
    assert b"one" in world.data.objects[keys.session("default", "s", 1)]
    assert (await sessions.delete("default", "s", told=lambda *_: None)) == deletion
    assert b"one" not in world.data.objects[keys.session("default", "s", 1)]
    assert keys.session("default", "s", 3) not in world.data.objects


async def test_deleting_a_session_writes_the_result_that_lies_in_it_first(world: World) -> None:
    asked = await world.routed("one", session_id="s")
    with pytest.raises(Died):
        await world.deliver(world.work(Talking(), passed=Steps("session")), RESPONDER)
    await sessions_of(world).delete("default", "s", told=lambda *_: None)
    assert await world.result(asked)
    await world.sweep_until_published(RESPONDER)
    await world.deliver(world.work(Talking()), RESPONDER)
    assert await said(world) == []


async def test_what_is_not_there_is_not_found(world: World) -> None:
    sessions = sessions_of(world)
    with pytest.raises(NotFound, match="no session 'none'"):
        await sessions.show("default", "none")
    with pytest.raises(NotFound, match="no session 'none'"):
        await sessions.delete("default", "none", told=lambda *_: None)


async def test_reading_and_deleting_are_on_record(world: World) -> None:
    await world.routed("one", session_id="s")
    await world.deliver(world.work(Talking()), RESPONDER)
    sessions = sessions_of(world)
    assert (await sessions.show("default", "s")).version == 1
    assert (await sessions.show("default", "s", 1)).version == 1
    await sessions.delete("default", "s", told=lambda *_: None)
    from tasks.audit.read import read

    actions = [(record.actor, record.action.value) for record in await read(world.audit_store)]
    assert actions.count(("olga", "session.read")) == 2
    assert ("olga", "session.deleted") in actions

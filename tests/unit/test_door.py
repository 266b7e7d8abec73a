"""What the door promises: accepted means durable, once, audited before it is on a queue."""

import pytest

from handlers.door import Acceptance, Accepted
from tasks.access.gate import Caller
from tasks.attempt import Disposition
from tasks.contracts.base import parse_versioned
from tasks.contracts.message import Message
from tasks.contracts.request import Request
from tasks.errors import Conflict, InvalidInput, StoreError
from tests.support import build
from tests.support.world import World


async def accept(world: World, *requests: Request) -> list[Accepted | Conflict]:
    return await world.door().accept(requests, caller=Caller("alice"))


def waiting(world: World) -> list[str]:
    return [parcel.ref for queue in ("requests.high", "requests") for parcel in world.broker.queues[queue]]


async def test_a_new_request_is_registered_audited_and_queued(world: World) -> None:
    asked = build.request("hello", id="r1", tenant="acme", session_id="s")
    assert await accept(world, asked) == [Accepted("r1", "acme", Acceptance.NEW)]
    row = await world.register.get("acme/r1")
    assert row is not None
    assert (row.state, row.queue, row.session, row.digest) == ("waiting", "requests", "s", asked.digest())
    [record] = await world.records(asked)
    assert (record.action, record.actor, record.tenant) == ("request.accepted", "alice", "acme")
    assert record.details == {"digest": asked.digest(), "door": "test"}
    message = parse_versioned(Message, world.broker.take("requests").message)
    assert (message.id, message.digest, message.accepted_at) == ("r1", asked.digest(), build.EPOCH)


async def test_the_same_request_again_changes_nothing(world: World) -> None:
    asked = build.request("hello", id="r1")
    await accept(world, asked)
    assert await accept(world, asked) == [Accepted("r1", "default", Acceptance.SAME)]
    assert waiting(world) == ["default/r1"]
    assert len(await world.records(asked)) == 1


async def test_another_body_under_the_same_id_is_a_conflict_and_holds_up_no_other(world: World) -> None:
    await accept(world, build.request("hello", id="r1"))
    one, two, three = await accept(
        world, build.request("a", id="r0"), build.request("bye", id="r1"), build.request("b", id="r2")
    )
    assert isinstance(two, Conflict)
    assert "r1" in str(two)
    assert [one, three] == [Accepted("r0", "default", Acceptance.NEW), Accepted("r2", "default", Acceptance.NEW)]
    assert waiting(world) == ["default/r1", "default/r0", "default/r2"]


async def test_a_batch_may_hold_the_same_request_twice(world: World) -> None:
    asked = build.request("hello", id="r1")
    outcomes = await accept(world, asked, asked)
    assert outcomes == [Accepted("r1", "default", state) for state in (Acceptance.NEW, Acceptance.SAME)]
    assert waiting(world) == ["default/r1"]


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_request_that_finished_long_ago_is_not_run_again(world: World, forgotten: bool) -> None:
    asked = await world.routed("hello", id="r1")
    assert await world.deliver(world.work(), "agents.responder") is Disposition.ACK
    if forgotten:
        world.register.forget("default/r1")
    same, other = await accept(world, asked, build.request("bye", id="r1"))
    assert same == Accepted("r1", "default", Acceptance.SAME)
    assert isinstance(other, Conflict)
    assert waiting(world) == []


async def test_an_intent_without_a_route_is_refused_by_name(world: World) -> None:
    with pytest.raises(InvalidInput, match="intent: 'book_flight' has no route"):
        await accept(world, Request(text="a"), Request(text="b", intent="book_flight"))
    assert waiting(world) == []


async def test_a_high_priority_takes_the_high_queue(world: World) -> None:
    await accept(world, build.request("hello", priority="high"))
    assert [len(world.broker.queues[queue]) for queue in ("requests.high", "requests")] == [1, 0]


async def test_a_large_body_travels_by_claim_check(world: World) -> None:
    world.settings = world.settings.changed(queue=world.settings.queue.changed(inline_bytes=100))
    asked = build.request("".join(chr(33 + (7 * index * index) % 90) for index in range(20_000)), id="r1")
    await accept(world, asked)
    [parcel] = world.broker.queues["requests"]
    assert len(parcel.message) < 1000
    assert world.data.objects == {f"bodies/default/r1~{asked.digest()}.json": asked.body()}


async def test_the_audit_is_durable_before_the_message_is_queued(world: World) -> None:
    seen: list[int] = []

    class Watched(type(world.broker)):  # type: ignore[misc]
        async def publish(self, parcels: object) -> None:
            seen.append(len(world.audit_store.objects))

    world.broker = Watched()
    await accept(world, build.request())
    assert seen == [1]


async def test_a_broker_that_fails_leaves_the_row_for_the_sweeper(world: World) -> None:
    asked = build.request(id="r1")
    world.broker.fail = StoreError("away")
    with pytest.raises(StoreError):
        await accept(world, asked)
    assert (await world.actions(asked)) == {"request.accepted": 1}
    world.broker.fail = None
    assert await accept(world, asked) == [Accepted("r1", "default", Acceptance.SAME)]
    assert waiting(world) == []
    world.clock.advance(world.settings.leases.unpublished_seconds)
    assert (await world.sweeper().run_once()).unpublished == 1
    assert waiting(world) == ["default/r1"]


async def test_a_body_that_cannot_be_stored_accepts_nothing(world: World) -> None:
    world.settings = world.settings.changed(queue=world.settings.queue.changed(inline_bytes=1))
    world.data.fail = StoreError("away")
    with pytest.raises(StoreError):
        await accept(world, build.request("x" * 5000))
    assert world.register.rows == {}
    assert waiting(world) == []


async def test_accepting_nothing_is_no_error(world: World) -> None:
    assert await accept(world) == []

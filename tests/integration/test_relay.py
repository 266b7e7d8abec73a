"""The relay on a real server does in one step what the two-step relay does in two."""

from collections.abc import Sequence

import pytest

from tasks.contracts.row import Row, Stage
from tasks.errors import LeaseLost
from tasks.stores.connect import Stores
from tasks.stores.register import Handover, Verdict
from tasks.stores.relay import Relay, TwoStepRelay, publish_waiting
from tests.support import build
from tests.support.build import NOW, ref
from tests.support.register_contract import begin

NEXT = Handover(Stage.WORK, "agents.responder", '{"next":1}')


@pytest.fixture(params=["one step", "two steps"])
def relay(request: pytest.FixtureRequest, stores: Stores) -> Relay:
    return stores.relay if request.param == "one step" else TwoStepRelay(stores.register, stores.broker)


async def opened(stores: Stores, *rows: Row) -> Sequence[Row]:
    await stores.register.open(rows, due=NOW + 10)
    return rows


async def test_published_rows_wait_in_their_queue_and_are_marked(stores: Stores, relay: Relay) -> None:
    rows = await opened(stores, build.row("r1", message='{"n":1}'), build.row("r2", message='{"n":2}'))
    await relay.publish(rows, now=NOW)
    assert await stores.broker.peek("requests") == [{"n": 1}, {"n": 2}]
    assert await stores.broker.oldest("requests") == NOW
    kept = await stores.register.get(ref(rows[0]))
    assert kept is not None
    assert (kept.published, kept.recorded, kept.queued_at, kept.state) == (True, True, NOW, "waiting")
    assert await stores.register.unpublished(now=NOW + 99, limit=9) == []
    assert await stores.register.lost("requests", before=NOW, limit=9) == [ref(row) for row in rows]


async def test_publishing_nothing_is_no_error(relay: Relay) -> None:
    await relay.publish([], now=NOW)


async def test_a_row_that_is_held_is_not_published(stores: Stores) -> None:
    [row] = await opened(stores, build.row("r1"))
    assert (await begin(stores.register, row, "h")).verdict is Verdict.STARTED
    await stores.relay.publish([row], now=NOW)
    assert await stores.broker.length("requests") == 0


async def test_a_row_is_published_once_in_each_generation(stores: Stores) -> None:
    [row] = await opened(stores, build.row("r1"))
    for _ in range(2):
        await stores.relay.publish([row], now=NOW)
    await stores.relay.publish([row.changed(generation=7)], now=NOW)
    assert await stores.broker.length("requests") == 1


async def test_a_request_is_handed_over(stores: Stores, relay: Relay) -> None:
    [row] = await opened(stores, build.row("r1"))
    await begin(stores.register, row, "h")
    await relay.hand_over(ref(row), "h", NEXT, now=NOW + 1, due=NOW + 11)
    kept = await stores.register.get(ref(row))
    assert kept is not None
    assert (kept.stage, kept.queue, kept.message) == (Stage.WORK, "agents.responder", '{"next":1}')
    assert (kept.published, kept.holder, kept.attempts, kept.queued_at) == (True, "", 0, NOW + 1)
    assert kept.generation == 1
    assert await stores.broker.peek("agents.responder") == [{"next": 1}]
    assert await stores.register.counts() == {"leased": 0, "delayed": 0}
    assert await stores.register.lost("agents.responder", before=NOW + 1, limit=9) == [ref(row)]


async def test_a_hand_over_that_is_sent_twice_publishes_once(stores: Stores) -> None:
    [row] = await opened(stores, build.row("r1"))
    await begin(stores.register, row, "h")
    for _ in range(2):
        await stores.relay.hand_over(ref(row), "h", NEXT, now=NOW, due=NOW)
    assert await stores.broker.length("agents.responder") == 1


async def test_who_lost_the_lease_hands_nothing_over(stores: Stores, relay: Relay) -> None:
    [row] = await opened(stores, build.row("r1"))
    await begin(stores.register, row, "h")
    with pytest.raises(LeaseLost):
        await relay.hand_over(ref(row), "other", NEXT, now=NOW, due=NOW)
    with pytest.raises(LeaseLost):
        await relay.hand_over("default/none", "h", NEXT, now=NOW, due=NOW)
    assert await stores.broker.length("agents.responder") == 0


async def test_only_what_waits_in_the_register_is_published(stores: Stores, relay: Relay) -> None:
    [row] = await opened(stores, build.row("r1"))
    assert await publish_waiting(ref(row), stores.register, relay, now=NOW)
    assert not await publish_waiting(ref(row), stores.register, relay, now=NOW)
    assert not await publish_waiting("default/none", stores.register, relay, now=NOW)
    assert await stores.broker.length("requests") == 1

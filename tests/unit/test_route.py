"""Hop 1, and what both hops do with messages that they should not or cannot work on."""

import asyncio
from typing import Any

import orjson
import pytest

from tasks import keys
from tasks.attempt import Disposition
from tasks.contracts.asked import Asked
from tasks.contracts.base import canonical, parse_versioned
from tasks.contracts.message import Body, Message
from tasks.contracts.result import IntentInfo, Status
from tasks.contracts.row import Stage
from tasks.errors import ModelError, StoreError
from tests.support import build
from tests.support.world import RESPONDER, World, classify

REQUESTS = "requests"


async def handle(world: World, message: Message | dict[str, Any]) -> Disposition:
    raw = orjson.loads(message.to_json()) if isinstance(message, Message) else message
    return await world.route().handle(raw, "tag")


def quarantined(world: World) -> list[dict[str, Any]]:
    return [orjson.loads(parcel.message) for parcel in world.broker.queues[keys.QUARANTINE]]


async def never(asked: Asked) -> IntentInfo:
    raise AssertionError(f"classified: {asked.text}")


async def test_a_request_goes_to_the_pool_of_its_intent(world: World) -> None:
    asked = await world.accept("hello")
    read: list[tuple[str, str, str]] = []

    async def reads(asked: Asked) -> IntentInfo:
        read.append((asked.tenant, asked.id, asked.text))
        return build.intent("query_data")

    assert await world.deliver(world.route(reads), REQUESTS) is Disposition.ACK
    assert read == [("default", asked.id, "hello")]
    message = parse_versioned(Message, world.broker.take("agents.executor").message)
    assert (message.agent_type, message.intent, message.routed_at) == (
        "executor",
        build.intent("query_data"),
        build.EPOCH,
    )
    row = await world.register.get(f"default/{asked.id}")
    assert row is not None
    assert (row.stage, row.queue, row.state, row.attempts) == (Stage.WORK, "agents.executor", "waiting", 0)
    routed = (await world.records(asked))[-1]
    assert (routed.action, routed.resource) == ("intent.routed", "agents.executor")
    assert {"intent": "query_data", "confidence": 0.9, "model_version": "m1"}.items() <= routed.details.items()


async def test_what_is_out_of_scope_goes_to_the_fallback(world: World) -> None:
    await world.accept()

    async def reads(_: Asked) -> IntentInfo:
        return build.intent("out_of_scope")

    await world.deliver(world.route(reads), REQUESTS)
    assert len(world.broker.queues["agents.human_escalation"]) == 1


async def test_an_intent_that_the_producer_gave_is_not_read_again(world: World) -> None:
    asked = await world.accept(intent="plan_task")
    await world.deliver(world.route(never), REQUESTS)
    message = parse_versioned(Message, world.broker.take("agents.planner").message)
    assert message.intent == IntentInfo(label="plan_task", confidence=1.0, model_version="override")
    assert await world.actions(asked) == {"request.accepted": 1, "intent.override": 1}


async def test_a_high_priority_stays_high(world: World) -> None:
    await world.accept(priority="high")
    await world.deliver(world.route(), "requests.high")
    assert len(world.broker.queues[f"{RESPONDER}.high"]) == 1


async def test_a_classifier_that_fails_is_tried_again_later_and_later(world: World) -> None:
    asked = await world.accept()

    async def fails(_: Asked) -> IntentInfo:
        raise ModelError("no model")

    pauses = []
    for _ in range(world.settings.queue.attempts - 1):
        await world.deliver(world.route(fails), REQUESTS)
        row = await world.register.get(f"default/{asked.id}")
        assert row is not None
        pauses.append(row.due - world.clock.seconds)
        assert not world.broker.queues[REQUESTS]
        await world.sweep_until_published(REQUESTS)
    assert pauses == [2, 4, 8, 16]
    await world.deliver(world.route(fails), REQUESTS)
    result = await world.result(asked)
    assert result is not None
    assert (result.status, result.error and result.error.code) == (Status.FAILED, "attempts_exhausted")
    assert len(world.broker.queues[keys.DEAD_LETTERS]) == 1
    actions = await world.actions(asked)
    assert (actions["attempt.failed"], actions["request.dead_lettered"]) == (5, 1)


async def test_a_broker_that_fails_after_the_handover_is_left_to_the_sweeper(world: World) -> None:
    await world.accept()
    route = world.route()
    parcel = world.broker.take(REQUESTS)
    world.broker.fail = StoreError("away")
    assert await route.handle(orjson.loads(parcel.message), "tag") is Disposition.ACK
    world.broker.fail = None
    await world.sweep_until_published(RESPONDER)


# Messages that are not to be worked on ------------------------------------------------------------------


async def test_a_second_copy_of_a_message_does_nothing(world: World) -> None:
    asked = await world.accept()
    [parcel] = world.broker.queues[REQUESTS]
    world.broker.queues[REQUESTS].append(parcel)
    await world.deliver(world.route(), REQUESTS)
    assert await world.deliver(world.route(never), REQUESTS) is Disposition.ACK  # stale: it is at hop 2
    await world.deliver(world.work(), RESPONDER)
    world.broker.queues[REQUESTS].append(parcel)
    assert await world.deliver(world.route(never), REQUESTS) is Disposition.ACK  # finished
    assert (await world.actions(asked))["intent.routed"] == 1
    assert len(world.broker.queues[RESPONDER]) == 0


async def test_a_copy_that_arrives_during_an_attempt_is_held_off(world: World) -> None:
    await world.accept()
    [parcel] = world.broker.queues[REQUESTS]
    inside: list[Disposition] = []

    async def reads(asked: Asked) -> IntentInfo:
        inside.append(await world.route(never).handle(orjson.loads(parcel.message), "other"))
        return await classify(asked)

    await world.deliver(world.route(reads), REQUESTS)
    assert inside == [Disposition.ACK]
    assert len(world.broker.queues[RESPONDER]) == 1


async def test_a_request_that_the_register_lost_is_restored_from_its_message(world: World) -> None:
    asked = await world.accept(session_id="s")
    world.register.rows.clear()
    await world.deliver(world.route(), REQUESTS)
    row = await world.register.get(f"default/{asked.id}")
    assert row is not None
    assert (row.stage, row.queue, row.session, row.recorded) == (Stage.WORK, RESPONDER, "s", True)


async def test_a_request_that_ended_and_was_forgotten_is_not_restored(world: World) -> None:
    asked = await world.accept()
    await world.results.create(build.result(asked))
    world.register.rows.clear()
    assert await world.deliver(world.route(never), REQUESTS) is Disposition.ACK
    assert world.register.rows == {}


async def test_another_body_under_an_accepted_id_is_quarantined(world: World) -> None:
    asked = await world.accept("hello", id="r1")
    forged = build.message(build.request("give me the money", id="r1"))
    assert await handle(world, forged) is Disposition.ACK
    assert [message["digest"] for message in quarantined(world)] == [forged.digest]
    quarantine = (await world.records(asked))[-1]
    assert (quarantine.action, quarantine.decision) == ("grant.forged", "deny")
    row = await world.register.get("default/r1")
    assert row is not None
    assert (row.holder, row.attempts) == ("", 0)


async def test_a_body_that_is_not_its_digests_is_quarantined_and_costs_no_attempt(world: World) -> None:
    asked = await world.accept("hello", id="r1")
    forged = build.message(asked, body=Body(encoding="json", data='{"text":"give me the money"}'))
    assert await handle(world, forged) is Disposition.ACK
    assert len(quarantined(world)) == 1
    row = await world.register.get("default/r1")
    assert row is not None
    assert row.attempts == 0


@pytest.mark.parametrize(
    "raw", [{}, {"unreadable": True}, {"schema_version": "1.0"}, {"schema_version": "1.0", "id": 5, "tenant": ["x"]}]
)
async def test_what_no_door_wrote_is_quarantined(world: World, raw: dict[str, Any]) -> None:
    assert await handle(world, raw) is Disposition.ACK
    assert quarantined(world) == [raw]
    assert world.register.rows == {}
    assert world.data.objects == {}


@pytest.mark.parametrize("fields", [{"id": "../../other/r1"}, {"tenant": "a/b"}, {"id": "a//b"}, {"id": ""}])
async def test_an_id_that_no_door_lets_in_is_quarantined(world: World, fields: dict[str, str]) -> None:
    raw = {**orjson.loads(build.message().to_json()), **fields}
    assert await handle(world, raw) is Disposition.ACK
    assert len(quarantined(world)) == 1
    assert world.register.rows == {}


async def test_a_message_for_a_newer_worker_is_handed_back_unread_and_uncounted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asked = await world.accept(id="r1")
    raw = {**orjson.loads(world.broker.take(REQUESTS).message), "schema_version": "2.0"}
    world.register.rows["default/r1"] = world.register.rows["default/r1"].changed(message=canonical(raw).decode())
    assert await handle(world, raw) is Disposition.REQUEUE
    assert pauses == [world.settings.queue.hand_back_seconds]
    row = await world.register.get("default/r1")
    assert row is not None
    assert (row.attempts, row.holder) == (0, "")
    assert quarantined(world) == []
    assert await world.actions(asked) == {"request.accepted": 1}


@pytest.mark.parametrize("changes", [{"agent_type": "x"}, {"id": "r2"}, {"tenant": 7}, {"id": None}, {"deep": 1}])
async def test_a_message_that_only_says_that_it_is_newer_does_not_go_round(
    world: World, changes: dict[str, object]
) -> None:
    """Before, whoever could write to a queue kept it circling for ever, and each turn cost a worker its pause."""
    asked = await world.accept(id="r1")
    raw = {**orjson.loads(world.broker.take(REQUESTS).message), "schema_version": "2.0", **changes}
    if "deep" in changes:
        for _ in range(500):
            raw["deep"] = [raw["deep"]]
    assert await handle(world, raw) is Disposition.ACK
    assert len(quarantined(world)) == 1
    row = await world.register.get("default/r1")
    assert row is not None
    assert (row.attempts, row.holder) == (0, "")
    assert (await world.actions(asked))["request.accepted"] == 1


async def test_a_request_past_its_deadline_is_expired_without_being_read(world: World) -> None:
    asked = await world.accept(deadline=build.EPOCH.replace(minute=1))
    world.clock.advance(60)
    await world.deliver(world.route(never), REQUESTS)
    result = await world.result(asked)
    assert result is not None
    assert (result.status, result.error and result.error.code) == (Status.EXPIRED, "expired")
    assert not world.broker.queues[keys.DEAD_LETTERS]


async def test_an_attempt_that_is_stopped_gives_its_request_back_at_once_and_uncounted(world: World) -> None:
    asked = await world.accept()
    reading = asyncio.Event()

    async def stalls(_: Asked) -> IntentInfo:
        reading.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(world.deliver(world.route(stalls), REQUESTS))
    await reading.wait()
    task.cancel()
    assert await task is Disposition.ACK
    row = await world.register.get(f"default/{asked.id}")
    assert row is not None
    assert (row.attempts, row.holder, row.state) == (0, "", "waiting")
    assert [parcel.ref for parcel in world.broker.queues[REQUESTS]] == [f"default/{asked.id}"]
    await world.deliver(world.route(), REQUESTS)
    assert len(world.broker.queues[RESPONDER]) == 1


@pytest.mark.parametrize("done", [True, False])
async def test_an_attempt_that_is_stopped_while_it_begins_leaves_no_lease(
    world: World, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    asked = await world.accept()
    begin, asking = world.register.begin, asyncio.Event()

    async def unanswered(*arguments: Any, **named: Any) -> Any:
        if done:
            await begin(*arguments, **named)
        asking.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(world.register, "begin", unanswered)
    task = asyncio.create_task(world.deliver(world.route(), REQUESTS))
    await asking.wait()
    task.cancel()
    if done:
        assert await task is Disposition.ACK
        assert [parcel.ref for parcel in world.broker.queues[REQUESTS]] == [f"default/{asked.id}"]
    else:
        with pytest.raises(asyncio.CancelledError):  # the message is as good as new
            await task
    row = await world.register.get(f"default/{asked.id}")
    assert row is not None
    assert (row.attempts, row.holder, row.published) == (0, "", True)


async def test_an_attempt_that_lost_its_lease_leaves_without_a_trace(world: World) -> None:
    asked = await world.accept()
    ref = f"default/{asked.id}"

    async def overtaken(asked: Asked) -> IntentInfo:
        world.clock.advance(60)
        assert await world.register.seize(ref, "another", now=world.clock.seconds, lease=99)
        return await classify(asked)

    assert await world.deliver(world.route(overtaken), REQUESTS) is Disposition.ACK
    row = await world.register.get(ref)
    assert row is not None
    assert (row.holder, row.stage) == ("another", Stage.ROUTE)
    assert not world.broker.queues[RESPONDER]


async def test_a_register_that_is_away_acknowledges_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.accept()

    async def away(*_: object, **__: object) -> None:
        raise StoreError("away")

    monkeypatch.setattr(world.register, "begin", away)
    with pytest.raises(StoreError):
        await world.deliver(world.route(), REQUESTS)

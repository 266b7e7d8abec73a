"""A request that names a URL: every end is told there, and what nobody takes is given up for all to see."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest

from tasks import keys
from tasks.access.gate import Caller
from tasks.access.webhooks import headers, secret_of
from tasks.agents.fake import FakeRunner
from tasks.contracts.base import parse_versioned
from tasks.contracts.message import Message
from tasks.contracts.request import Request
from tasks.contracts.row import Stage
from tasks.deliver import spelt
from tasks.errors import InvalidInput, ModelError
from tasks.settings import CallbackSettings, QuotaSettings, TenantQuota
from tasks.stores.outbox import open_callback
from tasks.stores.revocations import MemoryRevocations
from tests.support import build, trust
from tests.support.hooks import CALLBACKS, URL, Hooks, call
from tests.support.planned import Planned
from tests.support.world import HUMAN, MASTER, RESPONDER, Died, Steps, World


@pytest.fixture(autouse=True)
def _secrets(world: World) -> None:
    world.settings = world.settings.changed(callbacks=CallbackSettings(secrets=("env:S",), attempts=3))


async def answered(world: World, **fields: Any) -> Request:
    """Let a request with a callback be answered, so that its callback waits."""
    asked = await world.routed(callback=URL, **fields)
    await world.deliver(world.work(FakeRunner("Forty-two.")), RESPONDER)
    return asked


async def test_the_end_is_told_signed_and_whole(world: World) -> None:
    asked = await answered(world)
    hooks = Hooks()
    await call(world, hooks)
    [sent] = hooks.seen
    result = await world.result(asked)
    assert result is not None
    assert sent.content == result.to_bytes()
    assert sent.headers["webhook-id"] == f"default/{asked.id}.r1"
    moment = int(sent.headers["webhook-timestamp"])
    wanted = headers(sent.headers["webhook-id"], moment, sent.content, [secret_of(MASTER, "default")])
    assert sent.headers["webhook-signature"] == wanted["webhook-signature"]
    assert moment == int(world.clock().timestamp())
    assert world.register.rows == {}
    assert (await world.actions(asked))["callback.delivered"] == 1
    assert not world.broker.queues[keys.DEAD_LETTERS]


async def test_a_request_without_one_makes_no_row_and_carries_no_mark(world: World) -> None:
    await world.routed()
    message = world.broker.queues[RESPONDER][0].message
    assert "callback" not in message
    assert "delivery" not in message
    await world.deliver(world.work(), RESPONDER)
    assert world.register.rows == {}
    assert not world.broker.queues[CALLBACKS]


async def test_who_fails_twice_gets_the_same_id_and_body_each_time(world: World) -> None:
    asked = await answered(world)
    hooks = Hooks(500, 503)
    for _ in range(3):
        await call(world, hooks)
    assert hooks.ids == [f"default/{asked.id}.r1"] * 3
    assert len({request.content for request in hooks.seen}) == 1
    assert len({request.headers["webhook-signature"] for request in hooks.seen}) == 3  # each has its time
    actions = await world.actions(asked)
    assert (actions["attempt.failed"], actions["callback.delivered"]) == (2, 1)
    assert world.register.rows == {}


async def test_a_retry_waits_in_the_register_for_its_time(world: World) -> None:
    asked = await answered(world)
    ref = keys.ref("default", keys.delivery_id(asked.id, 1))
    hooks = Hooks(500, httpx.Response(429, headers={"Retry-After": "300"}), 500)
    waits = []
    for _ in range(2):
        await call(world, hooks, chance=lambda: 1.0)
        row = await world.register.get(ref)
        assert row is not None
        waits.append(row.due - world.clock().timestamp())
    assert waits == [10, 300]


async def test_retry_after_is_bounded(world: World) -> None:
    asked = await answered(world)
    await call(world, Hooks(httpx.Response(503, headers={"Retry-After": "99999999"})))
    row = await world.register.get(keys.ref("default", keys.delivery_id(asked.id, 1)))
    assert row is not None
    assert row.due - world.clock().timestamp() == world.settings.callbacks.max_retry_seconds


async def given_up(world: World, asked: Request) -> str:
    """Check that it is; return the reason on record."""
    [record] = [record for record in await world.records(asked) if record.action == "callback.failed"]
    [letter] = world.broker.queues[keys.DEAD_LETTERS]
    message = orjson.loads(letter.message)
    assert (message["id"], message["delivery"]) == (asked.id, True)
    assert world.register.rows == {}
    result = await world.result(asked)
    assert result is not None
    assert result.status == "succeeded"
    assert [key for key in world.data.objects if key.startswith("results/")] == [keys.result("default", asked.id)]
    return record.reason


async def test_after_its_attempts_it_is_given_up_and_the_result_stands(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    asked = await answered(world)
    hooks = Hooks(500, 500, 500)
    for _ in range(3):
        await call(world, hooks)
    assert "3 attempts failed" in await given_up(world, asked)
    assert "callback given up" in caplog.text


@pytest.mark.parametrize("status", [400, 404, 410])
async def test_who_does_not_want_it_is_asked_once(world: World, status: int) -> None:
    asked = await answered(world)
    await call(world, Hooks(status))
    assert f"answered {status}" in await given_up(world, asked)


async def test_an_inner_address_is_given_up_and_nothing_is_sent(world: World) -> None:
    asked = await answered(world)
    # The door could not know: the host was allowed when the request came in.
    world.settings = world.settings.changed(callbacks=world.settings.callbacks.changed(allowed_hosts=("a.example",)))
    hooks = Hooks()
    await call(world, hooks)
    assert "callback_refused" in await given_up(world, asked)
    assert hooks.seen == []


async def test_a_callback_that_kills_every_worker_is_given_up(world: World) -> None:
    asked = await answered(world)
    for _ in range(3):
        await world.sweep_until_published(CALLBACKS)
        with pytest.raises(Died):
            await world.deliver(world.calling(Hooks(), passed=Steps("posted")), CALLBACKS)
    hooks = Hooks()
    await call(world, hooks)
    assert "attempts_exhausted" in await given_up(world, asked)
    assert hooks.seen == []


async def test_a_callback_whose_message_is_lost_again_and_again_is_given_up_by_the_sweeper(world: World) -> None:
    asked = await answered(world)
    for _ in range(world.settings.queue.attempts + 1):
        await world.sweep_until_published(CALLBACKS)
        world.broker.queues[CALLBACKS].clear()
    sweeper = world.sweeper()
    for _ in range(10):
        world.clock.advance(10)
        await sweeper.run_once()
    assert "lost" in await given_up(world, asked)


async def test_without_a_secret_it_waits_for_one(world: World) -> None:
    asked = await answered(world)
    hooks = Hooks()
    await call(world, hooks, masters=[])
    assert hooks.seen == []
    await call(world, hooks)
    assert hooks.ids == [f"default/{asked.id}.r1"]


# Every end leads there -----------------------------------------------------------------------------


async def told(world: World) -> dict[str, Any]:
    hooks = Hooks()
    await call(world, hooks)
    [body] = hooks.bodies
    return body


async def test_a_failure_is_told(world: World) -> None:
    world.settings = world.settings.changed(queue=world.settings.queue.changed(attempts=1))
    await world.accept(intent="talk_to_human", callback=URL)
    await world.deliver(world.route(), "requests")
    await world.deliver(world.work(FakeRunner(ModelError("away")), pool=HUMAN), HUMAN)
    body = await told(world)
    assert (body["status"], body["error"]["code"]) == ("failed", "attempts_exhausted")


async def test_a_deadline_that_passed_is_told_by_whoever_saw_it(world: World) -> None:
    """Its grant has expired by then, and that is no reason not to tell."""
    keyset = trust.keys()
    world.gate = trust.gate(keyset, world.clock)
    await world.accept(callback=URL, deadline=world.clock() + timedelta(seconds=20))
    world.clock.advance(21)
    await world.sweeper().run_once()
    assert (await told(world))["status"] == "expired"


async def test_a_rejection_is_told_where_the_grant_verifies(world: World) -> None:
    world.gate = trust.gate(trust.keys(), world.clock)
    asked = await world.accept(callback=URL)
    # Whoever may ask may not have it answered any more.
    world.gate = trust.gate(world.gate._keys, world.clock, policies=_Nothing())  # type: ignore[attr-defined, arg-type]
    await world.deliver(world.route(), "requests")
    body = await told(world)
    assert (body["status"], body["error"]["code"], body["request_id"]) == ("rejected", "denied", asked.id)


class _Nothing:
    def decide(self, question: Any) -> Any:
        return trust.policy().decide(type(question)((), question.tenant, question.act, question.name))


async def test_a_revoked_grant_is_not_called_back(world: World) -> None:
    revocations = MemoryRevocations()
    world.gate = trust.gate(trust.keys(), world.clock, revocations=revocations)
    asked = await answered(world)
    revocations.entries[keys.revoked_request("default", asked.id)] = world.clock().timestamp()
    world.clock.advance(10)
    hooks = Hooks()
    await call(world, hooks)
    assert hooks.seen == []
    assert "denied" in await given_up(world, asked)


async def test_what_is_cancelled_at_the_desk_is_told(world: World) -> None:
    asked = await world.accept(callback=URL)
    await world.desk().cancel("default", asked.id, caller=Caller("alice", ("user",)))
    assert (await told(world))["status"] == "cancelled"


async def test_a_later_revision_is_told_under_its_own_id(world: World) -> None:
    asked = await answered(world)
    hooks = Hooks()
    await call(world, hooks)
    later = Message(
        id=asked.id,
        tenant="default",
        revision=2,
        digest=asked.digest(),
        body=build.message(asked).body,
        callback=True,
        accepted_at=world.clock(),
    )
    standing = await world.result(asked)
    assert standing is not None
    again = standing.changed(revision=2, output="Forty-three.")
    await world.results.create(again)
    await world.finisher(world.stream("door")).close(later, again)
    await call(world, hooks)
    assert hooks.ids == [f"default/{asked.id}.r1", f"default/{asked.id}.r2"]
    assert [body["output"] for body in hooks.bodies] == ["Forty-two.", "Forty-three."]


async def test_a_plan_is_told_once_and_its_steps_are_not(world: World) -> None:
    planned = Planned(world)
    asked = await planned.ask(callback=URL)
    await planned.drain()
    hooks = Hooks()
    await call(world, hooks)
    assert hooks.ids == [f"default/{asked.id}.r1"]
    assert len(hooks.bodies[0]["steps"]) == 6
    assert not world.broker.queues[CALLBACKS]
    assert world.register.rows == {}


# The door ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://hooks.example.org/", "callbacks.allow_http"),
        ("https://me:hunter2@hooks.example.org/", "user name or password"),
        ("https://127.0.0.1/", "callbacks.private_hosts"),
    ],
)
async def test_a_door_says_what_is_wrong_with_a_url(world: World, url: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=r"request .*: callback: ") as raised:
        await world.accept(callback=url)
    assert said in str(raised.value)
    assert "hunter2" not in str(raised.value)


async def test_a_door_without_a_secret_takes_no_callbacks(world: World) -> None:
    world.settings = world.settings.changed(callbacks=CallbackSettings())
    with pytest.raises(InvalidInput, match=r"callbacks\.secrets"):
        await world.accept(callback=URL)


# Nothing on a queue is believed --------------------------------------------------------------------


async def test_a_request_s_message_is_nothing_for_this_pool_nor_the_other_way_round(world: World) -> None:
    await world.routed(callback=URL)
    world.broker.queues[CALLBACKS].append(world.broker.queues[RESPONDER][0])
    await world.deliver(world.calling(Hooks()), CALLBACKS)
    await world.deliver(world.work(), RESPONDER)
    world.broker.queues[RESPONDER].append(world.broker.queues[CALLBACKS][0])
    await world.deliver(world.work(), RESPONDER)
    assert len(world.broker.queues[keys.QUARANTINE]) == 2


async def test_nobody_has_a_callback_made_before_the_end_or_to_another_url(world: World) -> None:
    asked = await world.routed(callback=URL)
    message = orjson.loads(world.broker.queues[RESPONDER][0].message)
    early = {**message, "delivery": True}
    hooks = Hooks()
    await world.calling(hooks).handle(early, "tag")
    other = build.request(asked.text, id=asked.id, callback="https://evil.example/")
    await world.calling(hooks).handle({**early, "body": {"encoding": "json", "data": other.body().decode()}}, "tag")
    assert hooks.seen == []
    assert len(world.broker.queues[keys.QUARANTINE]) == 2
    assert set(world.register.rows) == {f"default/{asked.id}"}


@pytest.mark.parametrize("inline", [True, False])
async def test_a_hop_of_an_older_version_loses_no_callback(world: World, inline: bool) -> None:
    """It drops the mark when it hands the message on; the body has the URL all the same."""
    if not inline:
        world.settings = world.settings.changed(queue=world.settings.queue.changed(inline_bytes=1))
    asked = await world.routed("x" * 2000, callback=URL)
    parcel = world.broker.take(RESPONDER)
    older = {name: value for name, value in orjson.loads(parcel.message).items() if name != "callback"}
    assert (older["body"]["encoding"] != "object") is inline
    text = orjson.dumps(older, option=orjson.OPT_SORT_KEYS).decode()
    world.register._set(f"default/{asked.id}", message=text)
    await world.work().handle(older, "tag")
    hooks = Hooks()
    await call(world, hooks)
    assert hooks.ids == [f"default/{asked.id}.r1"]


async def test_a_mark_without_a_url_is_forged(world: World) -> None:
    await world.routed()
    message = orjson.loads(world.broker.take(RESPONDER).message)
    await world.work().handle({**message, "callback": True}, "tag")
    assert len(world.broker.queues[keys.QUARANTINE]) == 1


async def test_a_callback_that_the_register_lost_is_restored_from_its_message(world: World) -> None:
    await answered(world)
    world.register.rows.clear()
    hooks = Hooks()
    await world.deliver(world.calling(hooks), CALLBACKS)
    assert len(hooks.seen) == 1
    assert world.register.rows == {}


async def test_one_that_was_delivered_is_not_sent_again_when_its_message_comes_back(world: World) -> None:
    asked = await answered(world)
    parcel = world.broker.queues[CALLBACKS][0]
    hooks = Hooks()
    await call(world, hooks)
    world.broker.queues[CALLBACKS].append(parcel)
    await world.deliver(world.calling(hooks), CALLBACKS)
    assert len(hooks.seen) == 1
    assert (await world.actions(asked))["message.replayed"] == 1


async def test_a_message_of_a_newer_version_waits_for_a_newer_worker(world: World) -> None:
    asked = await world.routed(callback=URL)
    await world.deliver(world.work(), RESPONDER)
    ref = keys.ref("default", keys.delivery_id(asked.id, 1))
    newer = orjson.loads(world.broker.queues[CALLBACKS][0].message) | {"schema_version": "2.0"}
    world.register._set(ref, message=orjson.dumps(newer, option=orjson.OPT_SORT_KEYS).decode())
    world.settings = world.settings.changed(queue=world.settings.queue.changed(hand_back_seconds=0.001))
    assert (await world.calling(Hooks()).handle(newer, "tag")).value == "requeue"


# What it takes from others -------------------------------------------------------------------------


async def test_it_takes_no_slot_of_its_tenant(world: World) -> None:
    quota = QuotaSettings(default=TenantQuota(max_running=1))
    world.settings = world.settings.changed(quotas=quota)
    await answered(world)
    assert await world.register.load("default") == {"open": 0, "admitted": 0, "throttled": 0}
    await world.accept()
    assert len(world.broker.queues["requests"]) == 1
    await call(world, Hooks(500))
    assert (await world.register.load("default"))["admitted"] == 1


async def test_a_worker_that_is_told_to_stop_hands_it_back(world: World) -> None:
    asked = await answered(world)
    calling = world.calling(Hooks())
    begun = asyncio.Event()

    class Slow:
        async def post(self, *_: Any, **__: Any) -> int:
            begun.set()
            await asyncio.sleep(60)
            raise AssertionError

    calling._courier = Slow()  # type: ignore[assignment]
    running = asyncio.create_task(world.deliver(calling, CALLBACKS))
    await begun.wait()
    running.cancel()
    await running
    row = await world.register.get(keys.ref("default", keys.delivery_id(asked.id, 1)))
    assert row is not None
    assert (row.stage, row.attempts, row.published) == (Stage.DELIVER, 0, True)
    hooks = Hooks()
    await call(world, hooks)
    assert len(hooks.seen) == 1


async def test_one_that_is_over_can_be_made_again(world: World) -> None:
    asked = await answered(world)
    await call(world, Hooks(410))
    [letter] = world.broker.queues[keys.DEAD_LETTERS]
    message = parse_versioned(Message, letter.message)
    now = world.clock().timestamp()
    assert await open_callback(message, world.register, due=now) is None
    row = await open_callback(message, world.register, due=now, again=True)
    assert row is not None
    hooks = Hooks()
    await call(world, hooks)
    assert hooks.ids == [f"default/{asked.id}.r1"]


def test_a_large_result_is_told_without_what_makes_it_large() -> None:
    result = build.result(output="x" * 5000)
    assert spelt(result, 10_000) == result.to_bytes()
    small = json.loads(spelt(result, 1024))
    assert small.pop("truncated") is True
    assert "output" not in small
    assert small["request_id"] == result.request_id

"""Dead letters: found, read, redriven once whatever dies, dropped on record; what no door wrote stays."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest

from handlers.acting import Acting
from handlers.deadletters import Box, DeadLetters, Done, Wanted
from handlers.letter import DEAD, EVENTS, QUARANTINE, DeadLetter, Standing
from handlers.reopen import Reopener
from tasks import keys
from tasks.access.gate import Caller
from tasks.access.grants import REVISE
from tasks.access.signing import GRANT
from tasks.agents.fake import FakeRunner
from tasks.audit.read import read
from tasks.contracts.base import parse_versioned, sha256
from tasks.contracts.message import Message
from tasks.contracts.request import Request
from tasks.contracts.result import Result, Status
from tasks.errors import Denied, IntegrityError, InvalidInput, ModelError, StoreError
from tasks.settings import AgentSettings, CallbackSettings, Settings
from tasks.stores.broker import MemoryBroker, Parcel
from tests.support import trust
from tests.support.hooks import URL, Hooks, call
from tests.support.world import RESPONDER, World

EVERYTHING = Wanted()
ALONE = Settings(agents=(AgentSettings(type="responder"),))
"""Nobody takes over from the responder."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.settings = ALONE
    yield made
    await made.close()


def desk(world: World, who: str = "olga", *, gate: Any = None, roles: tuple[str, ...] = ("operator",)) -> DeadLetters:
    """What an operator sits at."""
    acting = Acting(Caller(who, roles), gate or world.gate, world.stream("door"), world.clock)
    reopener = Reopener(
        acting, register=world.register, relay=world.relay, results=world.results, unpublished_seconds=10
    )
    events = Box(getattr(world, "events", MemoryBroker()), "https://sqs/events")
    return DeadLetters(
        acting,
        {DEAD: Box(world.broker, DEAD), QUARANTINE: Box(world.broker, QUARANTINE), EVENTS: events},
        register=world.register,
        results=world.results,
        bodies=world.deps(RESPONDER).bodies,
        reopener=reopener,
    )


async def dead(world: World, text: str = "What is a sluice?", **fields: Any) -> Request:
    """A request that used up its attempts."""
    asked = await world.routed(text, **fields)
    await exhaust(world)
    return asked


async def exhaust(world: World) -> None:
    work = world.work(FakeRunner(ModelError("the endpoint is away")))
    for attempt in range(world.settings.queue.attempts):
        if attempt:
            await world.sweep_until_published(RESPONDER)
        await world.deliver(work, RESPONDER)


async def found(world: World, wanted: Wanted = EVERYTHING, **changes: Any) -> list[DeadLetter]:
    return [letter async for page in desk(world, **changes).find(wanted) for letter in page]


async def redriven(world: World, wanted: Wanted = EVERYTHING, *, dry: bool = False, **changes: Any) -> list[Done]:
    table = desk(world, **changes)
    return [one async for page in table.find(wanted) for one in await table.redrive(page, dry=dry)]


async def dropped(world: World, wanted: Wanted = EVERYTHING, **changes: Any) -> list[Done]:
    table = desk(world, **changes)
    return [one async for page in table.find(wanted) for one in await table.drop(page)]


async def newest(world: World, asked: Request) -> Result:
    result = await world.results.newest(asked.tenant, asked.id)
    assert result is not None
    return result


async def answer(world: World) -> None:
    await world.deliver(world.route(), "requests")
    await world.deliver(world.work(), RESPONDER)


def letters(world: World, box: str = DEAD) -> list[str]:
    return [parcel.ref for parcel in world.broker.queues[box]]


# What lies there ----------------------------------------------------------------------------------------


async def test_a_letter_says_whose_it_is_why_and_after_how_many_attempts(world: World) -> None:
    asked = await dead(world, id="r1")
    [letter] = await found(world)
    assert (letter.tenant, letter.request_id, letter.revision, letter.pool) == ("default", "r1", 1, RESPONDER)
    assert (letter.code, letter.attempts, letter.standing) == ("attempts_exhausted", 5, Standing.DEAD)
    assert "the endpoint is away" in letter.reason
    assert letter.id == sha256(letter.data)[:12]
    assert await desk(world).show(letter) == asked.text
    [record] = [record for record in await read(world.audit_store) if record.action == "dead_letter.read"]
    assert (record.actor, record.request_id, record.details["digest"]) == ("olga", "r1", letter.digest)


async def test_letters_are_found_by_tenant_pool_reason_and_id(world: World) -> None:
    await dead(world, id="a", tenant="acme")
    await dead(world, id="b", tenant="bolt")
    await world.broker.publish([Parcel(DEAD, "x", '"junk"', 1.0)])
    by = {
        "tenant": Wanted(tenant="acme"),
        "pool": Wanted(pool=RESPONDER, tenant="acme"),
        "reason": Wanted(reason="ENDPOINT is away", ids=("a",)),
        "id": Wanted(ids=("a",)),
        "box": Wanted(boxes=(DEAD,), ids=("a",)),
    }
    for name, wanted in by.items():
        assert [letter.request_id for letter in await found(world, wanted)] == ["a"], name
    assert await found(world, Wanted(pool="agents.planner")) == []
    assert await found(world, Wanted(reason="no such reason", tenant="acme")) == []
    assert await desk(world).count(EVERYTHING) == 3
    [first, *_] = await found(world)
    assert await found(world, Wanted(ids=(first.id,))) == [first]


async def test_more_letters_than_a_page_are_all_found_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.deadletters.PAGE", 3)
    for number in range(7):
        await world.broker.publish([Parcel(DEAD, "x", f'{{"n": {number}}}', 1.0)])
    assert len({letter.digest for letter in await found(world)}) == 7
    assert len(await dropped(world)) == 7
    assert letters(world) == []


async def test_what_no_door_wrote_is_shown_and_stays_on_a_redrive(world: World) -> None:
    asked = await world.routed(id="r1")
    forged = orjson.loads(world.broker.queues[RESPONDER][0].message) | {"digest": "0" * 64}
    await world.work().handle(forged, "tag")
    await world.work().handle({"unreadable": "AP8="}, "tag")
    await world.broker.publish([Parcel(DEAD, "x", "7", 1.0)])
    done = await redriven(world)
    assert [(one.letter.box, one.letter.standing) for one in done] == [
        (DEAD, Standing.REFUSED),
        (QUARANTINE, Standing.REFUSED),
        (QUARANTINE, Standing.REFUSED),
    ]
    assert "does not match its digest" in done[1].letter.reason
    assert all("no door wrote it" in one.why for one in done)
    assert (len(letters(world)), len(letters(world, QUARANTINE))) == (1, 2)
    assert done[1].letter.owner == "*"
    assert await desk(world).show(done[1].letter) is None
    assert (await world.register.get(f"default/{asked.id}")) is not None


async def test_an_event_that_is_no_request_says_so(world: World) -> None:
    world.events = MemoryBroker()  # type: ignore[attr-defined]
    await world.events.publish([Parcel("https://sqs/events", "x", "null", 1.0)])  # type: ignore[attr-defined]
    [done] = await redriven(world)
    assert done.letter.standing is Standing.EVENT
    assert "mend it" in done.why
    assert [one.fresh for one in await dropped(world)] == [True]
    assert await found(world) == []


# Redrive ------------------------------------------------------------------------------------------------


async def test_a_redrive_runs_the_request_again_and_takes_the_letter_away(world: World) -> None:
    asked = await dead(world, id="r1", session_id="s")
    [done] = await redriven(world)
    assert (done.revision, done.fresh, done.error) == (2, True, None)
    assert letters(world) == []
    await answer(world)
    result = await newest(world, asked)
    assert (result.revision, result.status) == (2, Status.SUCCEEDED)
    [record] = [record for record in await world.records(asked) if record.action == "request.redriven"]
    assert (record.actor, record.resource) == ("olga", DEAD)
    assert record.details == {"revision": 2, "letter": done.letter.digest, "revision_before": 1}


async def test_a_request_that_fails_again_is_a_letter_again_with_its_new_revision(world: World) -> None:
    asked = await dead(world, id="r1")
    await redriven(world)
    await world.deliver(world.route(), "requests")
    await exhaust(world)
    [letter] = await found(world)
    assert (letter.revision, letter.standing) == (2, Standing.DEAD)
    await redriven(world)
    await answer(world)
    assert (await newest(world, asked)).revision == 3


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(world: World) -> None:
    await dead(world, id="r1")
    [done] = await redriven(world, dry=True)
    assert (done.revision, done.fresh) == (2, True)
    assert letters(world) == ["default/r1"]
    assert await world.register.get("default/r1") is None
    [would] = await desk(world).drop(await found(world), dry=True)
    assert would.fresh
    assert letters(world) == ["default/r1"]
    assert not [record for record in await read(world.audit_store) if record.action == "dead_letter.dropped"]


async def test_two_operators_at_once_open_one_revision(world: World) -> None:
    asked = await dead(world, id="r1")
    done = [one for both in await asyncio.gather(redriven(world), redriven(world, who="ottla")) for one in both]
    assert sorted(one.fresh for one in done) == [False, True]
    assert {one.revision for one in done} == {2}
    assert (letters(world), len(world.broker.queues["requests"])) == ([], 1)
    await answer(world)
    assert (await newest(world, asked)).revision == 2


@pytest.mark.parametrize("ended", [False, True])
async def test_who_dies_before_the_letter_is_gone_leaves_one_that_a_redrive_takes_away(
    world: World, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    asked = await dead(world, id="r1")
    with monkeypatch.context() as patch:
        patch.setattr(world.broker, "remove", _away)
        [done] = await redriven(world)
        assert isinstance(done.error, StoreError)
    if ended:
        await answer(world)
    [letter] = await found(world)
    assert letter.standing is Standing.REDRIVEN
    [done] = await redriven(world)
    assert (done.revision, done.fresh, letters(world)) == (2, False, [])
    if not ended:
        await answer(world)
    assert (await newest(world, asked)).revision == 2
    assert len([record for record in await world.records(asked) if record.action == "result.written"]) == 2


async def _away(*_: Any) -> None:
    raise StoreError("away")


async def test_a_letter_that_is_there_twice_is_redriven_once(world: World) -> None:
    await dead(world, id="r1")
    [parcel] = world.broker.queues[DEAD]
    await world.broker.publish([Parcel(DEAD, parcel.ref, parcel.message, parcel.queued_at + 1)])
    assert sorted(one.fresh for one in await redriven(world)) == [False, True]
    assert letters(world) == []


async def test_turns_of_a_session_are_opened_in_their_order(world: World) -> None:
    for number in range(12):
        await dead(world, id=f"r{number}", session_id="s")
    await redriven(world)
    opened = [parcel.ref for parcel in world.broker.queues["requests"]]
    assert opened == [f"default/r{number}" for number in range(12)]


async def test_a_request_whose_body_is_gone_stays_and_says_why(world: World) -> None:
    world.settings = world.settings.changed(queue=world.settings.queue.changed(inline_bytes=1))
    asked = await dead(world, "Some text. " * 200, id="r1")
    key = keys.body("default", "r1", asked.digest())
    kept = world.data.objects.pop(key)
    [done] = await redriven(world)
    assert "its body is not in object storage" in done.why
    world.data.objects[key] = b"{}"
    [done] = await redriven(world)
    assert isinstance(done.error, IntegrityError)
    assert letters(world) == ["default/r1"]
    world.data.objects[key] = kept
    assert [one.fresh for one in await redriven(world)] == [True]


async def test_what_has_another_end_or_none_is_not_redriven(world: World) -> None:
    asked = await world.routed(id="r1")
    message = world.broker.queues[RESPONDER][0].message
    await world.broker.publish([Parcel(DEAD, "default/r1", message, 1.0)])
    assert [letter.standing for letter in await found(world)] == [Standing.OPEN]
    [done] = await redriven(world)
    assert "has no result yet" in done.why
    await world.deliver(world.work(), RESPONDER)
    assert (await newest(world, asked)).status is Status.SUCCEEDED
    assert [letter.standing for letter in await found(world)] == [Standing.ENDED]
    [done] = await redriven(world)
    assert "has ended as succeeded" in done.why
    assert letters(world) == ["default/r1"]


async def test_after_its_deadline_nobody_waits_for_it(world: World) -> None:
    await dead(world, id="r1", deadline=world.clock() + timedelta(hours=9))
    world.clock.advance(10 * 3600)
    [done] = await redriven(world)
    assert isinstance(done.error, InvalidInput)
    assert "has passed" in done.why


# Drop ---------------------------------------------------------------------------------------------------


async def test_what_is_dropped_is_on_record_with_its_digest(world: World) -> None:
    asked = await dead(world, id="r1")
    [done] = await dropped(world)
    assert letters(world) == []
    [record] = [record for record in await read(world.audit_store) if record.action == "dead_letter.dropped"]
    assert (record.actor, record.request_id, record.resource) == ("olga", "r1", DEAD)
    assert record.details == {"digest": done.letter.digest, "bytes": len(done.letter.data)}
    assert (await newest(world, asked)).status is Status.FAILED


async def test_nothing_is_dropped_that_is_not_on_record(world: World) -> None:
    await dead(world, id="r1")
    table = desk(world)
    [letter] = await found(world)
    world.audit_store.fail = StoreError("away")
    dropping = asyncio.create_task(table.drop([letter]))
    await asyncio.sleep(0.05)
    assert letters(world) == ["default/r1"]
    dropping.cancel()
    await asyncio.wait([dropping])
    assert letters(world) == ["default/r1"]


# Who may ------------------------------------------------------------------------------------------------


class Guard:
    """Signed grants: alice asks, olga may act for her, in one tenant; ada in all; uma is a user."""

    def __init__(self, world: World) -> None:
        revise, mend = (GRANT, REVISE), ("operator", "user")
        scopes = {
            "alice": trust.scope(),
            "olga": trust.scope(purposes=revise, subjects=("olga", "alice"), roles=mend, tenants=("default",)),
            "ada": trust.scope(purposes=revise, subjects=("ada", "alice"), roles=mend, tenants=("*",)),
            "ida": trust.scope(purposes=revise, subjects=("ida",), roles=("operator",)),
            "uma": trust.scope(subjects=("uma",), roles=("user",)),
        }
        made = {name: trust.keys(scope) for name, scope in scopes.items()}
        ring = trust.KeyRing(key for keyset in made.values() for key in keyset.ring)
        self.gates = {name: trust.gate(trust.Keys(keyset.signers, ring), world.clock) for name, keyset in made.items()}
        world.gate = self.gates["alice"]

    def __getitem__(self, who: str) -> dict[str, Any]:
        return {"who": who, "gate": self.gates[who], "roles": ("user",) if who == "uma" else ("operator",)}


async def test_who_asked_stays_and_the_grant_names_who_acts(world: World) -> None:
    guard = Guard(world)
    await dead(world, id="r1")
    assert [one.fresh for one in await redriven(world, **guard["olga"])] == [True]
    row = await world.register.get("default/r1")
    assert row is not None
    grant = world.gate.verify(parse_versioned(Message, orjson.loads(row.message)))
    assert (grant.subject, grant.actor, grant.claims.rev, set(grant.claims.roles)) == ("alice", "olga", 2, {"user"})


async def test_a_user_sees_redrives_and_drops_nothing_and_that_is_on_record(world: World) -> None:
    guard = Guard(world)
    await dead(world, id="r1")
    table = desk(world, **guard["uma"])
    assert [page async for page in table.find(EVERYTHING)] == []
    assert table.hidden == 1
    with pytest.raises(Denied, match="dlq:redrive"):
        await anext(table.find(Wanted(tenant="default")))
    with pytest.raises(InvalidInput, match=r"events\.dead_letters"):
        await anext(table.find(Wanted(boxes=("elsewhere",))))
    [letter] = await found(world, Wanted(ids=("r1",)), **guard["uma"])
    with pytest.raises(Denied, match="dlq:redrive"):
        await table.show(letter)
    for done in (await table.redrive([letter]), await table.drop([letter])):
        assert isinstance(done[0].error, Denied)
    assert letters(world) == ["default/r1"]
    actions = [(record.actor, record.action.value) for record in await read(world.audit_store)]
    assert actions.count(("uma", "permission.violation")) == 4


async def test_an_operator_whose_key_may_not_sign_for_the_subject_leaves_the_letter(world: World) -> None:
    guard = Guard(world)
    await dead(world, id="r1")
    [done] = await redriven(world, **guard["ida"])
    assert isinstance(done.error, Denied)
    assert "subject 'alice'" in done.why
    assert letters(world) == ["default/r1"]


async def test_what_nobody_vouches_for_takes_a_key_for_all_tenants(world: World) -> None:
    guard = Guard(world)
    await world.broker.publish([Parcel(QUARANTINE, "x", '{"tenant": "default"}', 1.0)])
    assert await found(world, **guard["olga"]) == []
    assert len(await dropped(world, **guard["ada"])) == 1


async def test_a_letter_that_a_queue_writer_laid_there_is_not_redriven(world: World) -> None:
    guard = Guard(world)
    asked = await dead(world, id="r1")
    raw = orjson.loads(world.broker.queues[DEAD].pop().message)
    other = Message(**{**_fields(raw), "session_id": "another"})
    await world.broker.publish([Parcel(DEAD, "x", other.to_json(), 1.0)])
    await world.broker.publish([Parcel(DEAD, "x", orjson.dumps(raw | {"digest": "0" * 64}).decode(), 2.0)])
    done = await redriven(world, **guard["ada"])
    assert [one.fresh for one in done] == [False, False]
    assert "session_id: is not that of the body" in done[0].why
    assert "another body" in done[1].why
    assert await world.register.get(f"default/{asked.id}") is None


def _fields(raw: dict[str, Any]) -> dict[str, Any]:
    message = parse_versioned(Message, raw)
    return {name: getattr(message, name) for name in message.__struct_fields__}


async def test_a_callback_that_was_given_up_is_called_again_under_its_own_id(world: World) -> None:
    world.settings = ALONE.changed(callbacks=CallbackSettings(secrets=("env:S",), attempts=1))
    asked = await world.routed(callback=URL)
    await world.deliver(world.work(FakeRunner("Forty-two.")), RESPONDER)
    hooks = Hooks(500)
    await call(world, hooks)
    operator = desk(world)
    [found] = [letter async for page in operator.find(EVERYTHING) for letter in page]
    assert (found.standing, found.pool, found.code) == (Standing.DEAD, keys.CALLBACK_POOL, "callback_failed")
    assert "500" in found.reason
    [done] = await operator.redrive([found])
    assert (done.why, done.revision, done.fresh) == ("", 1, True)
    [again] = await operator.redrive([found])
    assert not again.fresh
    await call(world, hooks)
    assert hooks.ids == [f"default/{asked.id}.r1"] * 2
    assert not world.broker.queues[DEAD]
    assert (await world.actions(asked))["request.redriven"] == 2
    assert world.register.rows == {}


async def test_what_the_sweeper_finds_of_a_callback_stays(world: World) -> None:
    world.broker = MemoryBroker(buries=True)
    world.settings = ALONE.changed(callbacks=CallbackSettings(secrets=("env:S",), attempts=1))
    await world.routed(callback=URL)
    await world.deliver(world.work(FakeRunner("Forty-two.")), RESPONDER)
    await call(world, Hooks(500))
    await world.sweeper().run_once()
    assert len(world.broker.queues[DEAD]) == 1

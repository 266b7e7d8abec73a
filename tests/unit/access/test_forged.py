"""Messages that no door wrote, put straight on every queue: none is executed, each is on record, no outcome changes."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest

from tasks import keys as names
from tasks.access.gate import Caller
from tasks.access.signing import KeyRing, Keys, generate
from tasks.attempt import Disposition
from tasks.contracts.message import Body, Message
from tasks.contracts.request import Request
from tasks.contracts.result import Status
from tests.support import build, trust
from tests.support.guarded import POOLS, QUEUES, Guarded, asked_for, ready
from tests.support.world import RESPONDER


@pytest.fixture
async def world() -> Any:
    made = Guarded()
    yield made
    await made.close()


def unsigned(world: Guarded, asked: Request) -> Message:
    return build.message(asked)


def self_signed(world: Guarded, asked: Request) -> Message:
    strange = generate("alice")
    keys = Keys([strange], KeyRing([trust.public(strange)]))
    return build.message(asked, grant=trust.gate(keys, world.clock).mint(asked, world.caller))


def borrowed_name(world: Guarded, asked: Request) -> Message:
    """A key of one's own under the id of a trusted one."""
    strange = generate("alice")
    strange.kid = world.alice.signers[0].kid
    keys = Keys([strange], KeyRing([trust.public(strange)]))
    return build.message(asked, grant=trust.gate(keys, world.clock).mint(asked, world.caller))


def another_requests_grant(world: Guarded, asked: Request) -> Message:
    return build.message(asked, grant=world.granted(build.request("something else")).grant)


def rebodied(world: Guarded, asked: Request) -> Message:
    """The grant and the digest of what was asked, with another body."""
    other = asked.model_copy(update={"text": "Send me everything"})
    return world.granted(asked, body=Body(encoding="json", data=other.body().decode()))


def redigested(world: Guarded, asked: Request) -> Message:
    """The grant of what was asked, with another body and its digest."""
    other = asked.model_copy(update={"text": "Send me everything"})
    body = Body(encoding="json", data=other.body().decode())
    return world.granted(asked).changed(body=body, digest=other.digest())


def cross_tenant(world: Guarded, asked: Request) -> Message:
    """A grant of another tenant's key, under this tenant's name."""
    own = asked.model_copy(update={"tenant": "other"})
    return world.granted(own, by=world.bob).changed(tenant="default")


def beyond_the_scope(world: Guarded, asked: Request) -> Message:
    """Bob signs for alice's tenant: his key is trusted, and may not."""
    bold = Keys(world.bob.signers, KeyRing([trust.public(world.bob.signers[0], trust.scope(subjects=("bob",)))]))  # type: ignore[arg-type]
    return build.message(asked, grant=trust.gate(bold, world.clock).mint(asked, Caller("bob", ("user",))))


def another_revision(world: Guarded, asked: Request) -> Message:
    return world.granted(asked, revision=2)


def another_session(world: Guarded, asked: Request) -> Message:
    return world.granted(asked).changed(session_id="somebody-elses")


def no_deadline(world: Guarded, asked: Request) -> Message:
    limited = asked.model_copy(update={"deadline": build.EPOCH + timedelta(hours=1)})
    return world.granted(limited).changed(deadline=None)


FORGERIES: list[Callable[[Guarded, Request], Message]] = [
    unsigned,
    self_signed,
    borrowed_name,
    another_requests_grant,
    rebodied,
    redigested,
    cross_tenant,
    beyond_the_scope,
    another_revision,
    another_session,
    no_deadline,
]


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
async def test_a_forged_message_is_quarantined_and_on_record_and_writes_nothing(
    world: Guarded, forge: Callable[[Guarded, Request], Message], queue: str
) -> None:
    asked = asked_for(queue, id="r1")
    forged = ready(queue, forge(world, asked))
    assert await world.put(queue, forged) is Disposition.ACK
    [kept] = world.broker.queues[names.QUARANTINE]
    assert orjson.loads(kept.message) == orjson.loads(forged.to_bytes())
    [record] = await world.records(asked)
    assert (record.action, record.decision) == ("grant.forged", "deny")
    assert world.data.objects == {}
    assert world.register.rows == {}
    assert world.runner.tasks == []


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
@pytest.mark.parametrize("when", ["before", "between", "after"])
async def test_a_forged_message_for_a_live_request_does_not_change_its_outcome(
    world: Guarded, forge: Callable[[Guarded, Request], Message], when: str
) -> None:
    asked = await world.accept(id="r1")
    forged = forge(world, asked)
    if when == "before":
        await world.put("requests", forged)
    await world.deliver(world.route(), "requests")
    if when == "between":
        await world.put(RESPONDER, ready(RESPONDER, forged))
    await world.deliver(world.work(world.runner), RESPONDER)
    if when == "after":
        for queue in POOLS:
            await world.put(queue, ready(queue, forged))
    result = await world.result(asked)
    assert result is not None
    assert (result.status, result.request_digest) == (Status.SUCCEEDED, asked.digest())
    assert [task.text for task in world.runner.tasks] == [asked.text]
    assert list(world.data.objects) == [names.result("default", "r1")]
    assert (await world.actions(asked))["grant.forged"] == (2 if when == "after" else 1)

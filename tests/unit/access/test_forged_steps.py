"""Messages of steps that no planner wrote, put straight on the queues: none is executed, each is on record."""

import json
from collections.abc import Callable

import orjson
import pytest

from tasks import keys as names
from tasks.access.grants import NARROW, Grant
from tasks.access.signing import KeyRing, Keys, decoded, encoded, generate
from tasks.attempt import Disposition
from tasks.contracts.base import canonical, parse_versioned
from tasks.contracts.message import Body, Message
from tasks.contracts.request import Request
from tasks.contracts.result import Status
from tasks.errors import Denied
from tasks.stores.broker import Parcel
from tasks.stores.revocations import MemoryRevocations
from tests.support import trust
from tests.support.planned import EXECUTOR, PLANNER, Planned, step
from tests.support.world import RESPONDER, World

STEPS = (step("a"), step("b", "executor"), step("c", "responder", "a", "b"))


class Guarded(World):
    """A world behind signed grants: ``alice`` asks, and the workers have the planner pool's key."""

    def __init__(self) -> None:
        super().__init__()
        self.signing = trust.keys(trust.scope(), trust.scope(purposes=(NARROW,), subjects=("*",), roles=("*",)))
        self.revocations = MemoryRevocations()
        self.gate = trust.gate(self.signing, self.clock, revocations=self.revocations)

    @property
    def planner_key(self) -> object:
        return self.signing.signers[1]


@pytest.fixture
async def world() -> object:
    made = Guarded()
    yield made
    await made.close()


@pytest.fixture
def planned(world: Guarded) -> Planned:
    return Planned(world, *STEPS)


def waiting(world: World, queue: str) -> Message:
    """Return the first message that waits in ``queue``, without taking it."""
    return parse_versioned(Message, world.broker.queues[queue][0].message)


async def put(planned: Planned, queue: str, message: Message) -> Disposition:
    raw = canonical(orjson.loads(message.to_bytes())).decode()
    planned.world.broker.queues[queue].append(Parcel(queue, "", raw, planned.world.clock.seconds))
    # The forged one is delivered first.
    planned.world.broker.queues[queue].rotate(1)
    return await planned.deliver(queue)


def resigned(world: Guarded, message: Message, signer: object, **claims: object) -> Message:
    """Return ``message`` with other claims, signed by ``signer`` under the same header."""
    header, payload, _ = (message.grant or "").split(".")
    changed = {**json.loads(decoded(payload)), **claims}
    signed = f"{header}.{encoded(json.dumps(changed).encode())}"
    return message.changed(grant=f"{signed}.{encoded(signer.sign(signed.encode()))}")  # type: ignore[attr-defined]


def another_step(world: Guarded, genuine: Message) -> Message:
    return genuine.changed(step="c")


def no_such_step(world: Guarded, genuine: Message) -> Message:
    return genuine.changed(step="z")


def another_agent(world: Guarded, genuine: Message) -> Message:
    """The planner allowed the responder to do it."""
    return resigned(world, genuine, world.planner_key, agt=["executor"])


def the_requests_own_grant(world: Guarded, genuine: Message) -> Message:
    parent = json.loads(decoded((genuine.grant or "").split(".")[1]))["par"]
    return genuine.changed(grant=parent)


def a_step_without_a_grant(world: Guarded, genuine: Message) -> Message:
    return genuine.changed(grant=None)


def self_signed(world: Guarded, genuine: Message) -> Message:
    return resigned(world, genuine, generate("planner"))


def signed_by_a_door(world: Guarded, genuine: Message) -> Message:
    """The key that asks may not narrow."""
    whole = world.gate.verify(the_requests_own_grant(world, genuine).changed(step=None))
    fields = {"plan": "p" * 64, "step": "a", "agents": ("responder",), "now": world.clock()}
    return genuine.changed(grant=trust.mint(world.signing).narrow(whole, **fields))  # type: ignore[arg-type]


def more_roles(world: Guarded, genuine: Message) -> Message:
    return resigned(world, genuine, world.planner_key, roles=["user", "admin"])


def a_longer_life(world: Guarded, genuine: Message) -> Message:
    return resigned(world, genuine, world.planner_key, exp=2**40)


def another_tenant(world: Guarded, genuine: Message) -> Message:
    return genuine.changed(tenant="other")


def another_revision(world: Guarded, genuine: Message) -> Message:
    return genuine.changed(revision=2)


def with_a_body(world: Guarded, genuine: Message) -> Message:
    """A step's body is the plan's, whatever the message says."""
    return genuine.changed(body=Body(encoding="json", data='{"text":"Send me everything"}'))


def no_step_at_all(world: Guarded, genuine: Message) -> Message:
    return genuine.changed(step=None)


FORGERIES: list[Callable[[Guarded, Message], Message]] = [
    another_step,
    no_such_step,
    another_agent,
    the_requests_own_grant,
    a_step_without_a_grant,
    self_signed,
    signed_by_a_door,
    more_roles,
    a_longer_life,
    another_tenant,
    another_revision,
    with_a_body,
    no_step_at_all,
]


async def sent(planned: Planned) -> Request:
    """A request whose first steps wait in their queues."""
    asked = await planned.ask()
    await planned.deliver(PLANNER)
    return asked


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
async def test_a_forged_step_is_quarantined_and_changes_nothing(
    world: Guarded, planned: Planned, forge: Callable[[Guarded, Message], Message]
) -> None:
    asked = await sent(planned)
    forged = forge(world, waiting(world, RESPONDER))
    await put(planned, RESPONDER, forged)
    assert len(world.broker.queues[names.QUARANTINE]) == 1
    assert planned.runner.tasks == []
    await planned.drain()
    result = await planned.result(asked)
    assert result.status is Status.SUCCEEDED
    assert sorted(planned.done_by_steps()) == ["a", "b", "c"]


async def test_a_step_for_another_pool_is_quarantined(world: Guarded, planned: Planned) -> None:
    await sent(planned)
    await put(planned, EXECUTOR, waiting(world, RESPONDER))
    assert len(world.broker.queues[names.QUARANTINE]) == 1
    assert planned.runner.tasks == []


async def test_a_step_at_the_classifier_is_quarantined(world: Guarded, planned: Planned) -> None:
    await sent(planned)
    genuine = waiting(world, RESPONDER)
    await put(planned, "requests", genuine.changed(agent_type=None))
    assert len(world.broker.queues[names.QUARANTINE]) == 1


async def test_a_step_is_not_begun_before_those_that_it_needs(world: Guarded, planned: Planned) -> None:
    """Its message was seen somewhere, and is put on the queue early."""
    asked = await sent(planned)
    row = await world.register.get(names.ref("default", asked.id, 1, "c"))
    assert row is not None
    world.broker.queues[RESPONDER].append(Parcel(RESPONDER, "", row.message, world.clock.seconds))
    world.broker.queues[RESPONDER].rotate(1)
    await planned.settle()
    assert planned.done_by_steps().index("c") == 2
    assert (await planned.result(asked)).status is Status.SUCCEEDED


async def test_a_plan_that_was_changed_in_the_bucket_is_not_carried_out(world: Guarded, planned: Planned) -> None:
    asked = await sent(planned)
    key = names.plan("default", asked.id, 1)
    world.data.objects[key] = world.data.objects[key].replace(b"do a", b"do evil")
    await planned.deliver(RESPONDER)
    assert planned.runner.tasks == []
    found = await planned.step(asked, "a")
    assert found is not None
    assert (found.status, found.error and found.error.code) == (Status.FAILED, "grant_forged")


async def test_a_step_may_only_do_what_its_request_may(world: Guarded, planned: Planned) -> None:
    asked = await sent(planned)
    world.revocations.entries[names.revoked_request("default", asked.id)] = world.clock.seconds
    world.clock.advance(world.settings.grants.revocation_seconds)
    await planned.settle()
    assert planned.runner.tasks == []
    assert (await planned.result(asked)).status is Status.REJECTED
    assert (await world.actions(asked))["permission.violation"] >= 1


async def test_agents_that_the_caller_may_not_invoke_do_no_steps(world: Guarded, planned: Planned) -> None:
    class Narrow(type(world.gate)):  # type: ignore[misc]
        def allow(self, grant: Grant, act: object, name: str) -> None:
            if name == "executor":
                raise Denied("not the executor")
            super().allow(grant, act, name)

    world.gate.__class__ = Narrow
    asked = await planned.ask()
    await planned.drain()
    assert "does no steps here; name one of responder" in planned.planner.asked[1].text
    assert (await planned.result(asked)).steps == ()


async def test_a_process_without_the_planners_key_says_so(world: Guarded, planned: Planned) -> None:
    bare = Keys(world.signing.signers[:1], KeyRing(world.signing.ring))
    world.gate = trust.gate(bare, world.clock)
    asked = await planned.ask()
    await planned.drain()
    [fallen] = [record for record in await world.records(asked) if record.action == "agent.fallback"]
    assert "not_ready" in fallen.reason
    assert await planned.plan(asked) is None

"""What the gate lets through at a door, and what it believes at a hop."""

from datetime import timedelta

import pytest

from tasks.access.gate import Caller, Gate, OpenGate, open_gate
from tasks.access.policy import Act
from tasks.access.signing import GRANT
from tasks.access.sources import throwaway
from tasks.contracts.message import Message
from tasks.contracts.request import Request
from tasks.errors import Denied, ForgedMessage, NotReady, StoreError
from tasks.settings import GrantSettings, Settings
from tasks.stores.revocations import MemoryRevocations
from tests.support import build, trust
from tests.support.world import Clock

KEYS = trust.keys()
ALICE = Caller("alice", ("user",))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def revocations() -> MemoryRevocations:
    return MemoryRevocations()


@pytest.fixture
def gate(clock: Clock, revocations: MemoryRevocations) -> Gate:
    return trust.gate(KEYS, clock, revocations=revocations)


def message(gate: Gate, asked: Request, **fields: object) -> Message:
    return build.message(asked, grant=gate.mint(asked, ALICE), **fields)


def test_the_local_key_says_who_asks(gate: Gate, clock: Clock) -> None:
    assert gate.caller() == ALICE
    many = trust.keys(trust.scope(subjects=("*",)))
    with pytest.raises(NotReady, match="stands for no one subject"):
        trust.gate(many, clock).caller()


def test_an_identity_names_the_key(clock: Clock) -> None:
    keys = trust.keys(trust.scope(), trust.scope(subjects=("bob",), roles=("developer",)))
    gate = trust.gate(keys, clock, settings=GrantSettings(identity="key1"))
    assert gate.caller() == Caller("bob", ("developer",))
    with pytest.raises(NotReady, match="'key7'"):
        trust.gate(keys, clock, settings=GrantSettings(identity="key7")).caller()


def test_what_the_door_minted_verifies(gate: Gate) -> None:
    asked = build.request()
    grant = gate.verify(message(gate, asked))
    assert (grant.subject, grant.claims.jti, grant.claims.dig) == ("alice", asked.id, asked.digest())


def test_a_grant_ends_at_the_deadline_else_after_its_age(gate: Gate) -> None:
    deadline = build.EPOCH + timedelta(days=90, milliseconds=500)
    ends = [
        gate.verify(message(gate, asked)).claims.exp - int(build.NOW)
        for asked in (build.request(), build.request(deadline=deadline))
    ]
    assert ends == [14 * 86400, 90 * 86400 + 1]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"grant": None}, "no grant"),
        ({"grant": "x"}, "not a compact JWS"),
        ({"id": "other"}, "is for request"),
        ({"tenant": "evil"}, "is for tenant default"),
        ({"digest": "0" * 64}, "another body"),
        ({"revision": 2}, "is for revision 1"),
    ],
)
def test_a_message_that_its_grant_does_not_vouch_for_is_forged(
    gate: Gate, fields: dict[str, object], told: str
) -> None:
    asked = build.request()
    with pytest.raises(ForgedMessage, match=told):
        gate.verify(message(gate, asked).changed(**fields))


def test_another_body_is_forged(gate: Gate) -> None:
    asked = build.request()
    gate.verify_body(message(gate, asked), asked.body())
    with pytest.raises(ForgedMessage, match="body does not match"):
        gate.verify_body(message(gate, asked), asked.body() + b" ")


async def test_an_expired_grant_does_not_stand(gate: Gate, clock: Clock) -> None:
    grant = gate.verify(message(gate, build.request()))
    clock.advance(14 * 86400 - 1)
    await gate.standing(grant)
    clock.advance(1)
    with pytest.raises(Denied, match="expired at 2030-01-15"):
        await gate.standing(grant)


@pytest.mark.parametrize("entry", ["request:default/r1", "subject:default/alice", f"key:{KEYS.signer(GRANT).kid}"])
async def test_a_revoked_grant_does_not_stand_and_a_newer_one_does(
    gate: Gate, clock: Clock, revocations: MemoryRevocations, entry: str
) -> None:
    asked = build.request(id="r1")
    old = gate.verify(message(gate, asked))
    clock.advance(60)
    revocations.entries[entry] = clock.seconds
    with pytest.raises(Denied, match=entry):
        await gate.standing(old)
    clock.advance(1)
    await gate.standing(gate.verify(message(gate, asked)))


async def test_the_list_is_read_again_when_it_is_old_and_no_sooner(
    gate: Gate, clock: Clock, revocations: MemoryRevocations
) -> None:
    grant = gate.verify(message(gate, build.request(id="r1")))
    await gate.standing(grant)
    revocations.entries["request:default/r1"] = clock.seconds
    clock.advance(4.9)
    await gate.standing(grant)
    assert revocations.reads == 1
    clock.advance(0.1)
    with pytest.raises(Denied, match="revoked"):
        await gate.standing(grant)
    assert revocations.reads == 2


async def test_a_list_that_cannot_be_read_lets_nobody_through(
    gate: Gate, clock: Clock, revocations: MemoryRevocations
) -> None:
    grant = gate.verify(message(gate, build.request()))
    revocations.fail = StoreError("away")
    with pytest.raises(StoreError):
        await gate.standing(grant)
    revocations.fail = None
    await gate.standing(grant)


def test_the_door_asks_for_everything_that_the_request_wants(gate: Gate) -> None:
    gate.admit(build.request(), ALICE)
    for fields, told in (({"intent": "call_api"}, "intent:override"), ({"model": "gpt-4"}, "model:override")):
        with pytest.raises(Denied, match=f"alice .user. of tenant default may not {told}"):
            gate.admit(build.request(**fields), ALICE)
    with pytest.raises(Denied, match="may not request:submit"):
        gate.admit(build.request(), Caller("alice", ()))


def test_the_door_refuses_what_its_key_may_not_sign(clock: Clock) -> None:
    gate = trust.gate(trust.keys(trust.scope(tenants=("acme",))), clock)
    with pytest.raises(Denied, match="may not sign for tenant 'evil'"):
        gate.admit(build.request(tenant="evil"), ALICE)
    with pytest.raises(Denied, match="subject 'bob'"):
        gate.admit(build.request(tenant="acme"), Caller("bob", ("user",)))
    with pytest.raises(Denied, match="role 'admin'"):
        gate.admit(build.request(tenant="acme"), Caller("alice", ("admin",)))


def test_roles_are_asked_at_a_hop(gate: Gate) -> None:
    grant = gate.verify(message(gate, build.request()))
    gate.allow(grant, Act.AGENT_INVOKE, "executor")
    with pytest.raises(Denied, match="model:override on model 'gpt-4'"):
        gate.allow(grant, Act.MODEL_OVERRIDE, "gpt-4")


def test_the_settings_say_which_gate_stands(clock: Clock) -> None:
    keys, revocations = throwaway(), MemoryRevocations()
    opened = open_gate(Settings(grants=GrantSettings(mode="open")), keys=keys, revocations=revocations, now=clock)
    assert isinstance(opened, OpenGate)
    signed = open_gate(Settings(), keys=keys, revocations=revocations, now=clock)
    assert signed.caller() == Caller("local", ("admin",))
    with pytest.raises(ForgedMessage):
        signed.verify(build.message())

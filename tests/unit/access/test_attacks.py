"""What somebody with a key of the ring tries beyond its scope; what ring and policies must not be talked into.

Each test is an attack that once worked, or nearly did.
"""

import contextlib
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.access.gate import CLOCK_SKEW_SECONDS
from tasks.access.grants import REVISE, TYPE, GrantReader, Mint
from tasks.access.policy import Act, Question
from tasks.access.signing import GRANT, KeyRing, Keys, PublicKey, decoded, encoded, generate, kid_of
from tasks.contracts.base import parse_versioned
from tasks.contracts.message import Message, decode_body
from tasks.contracts.request import Request
from tasks.contracts.strict import parse_strict
from tasks.errors import BadSignature, Denied, ForgedMessage, InvalidInput, MalformedMessage, NewerSchema, SettingsError
from tasks.stores.revocations import MemoryRevocations
from tests.support import build, trust
from tests.support.world import Clock

KEYS = trust.keys()
TOKEN = trust.token(trust.mint(KEYS))


def signed(claims: dict[str, Any], keys: Keys = KEYS, *, payload: bytes = b"") -> str:
    """A grant with any claims, signed by the first key: a producer that does not use our door."""
    _, sealed, _ = TOKEN.split(".")
    header = encoded(json.dumps({"alg": "EdDSA", "kid": keys.signers[0].kid, "typ": TYPE}).encode())
    body = payload or json.dumps({**json.loads(decoded(sealed)), **claims}).encode()
    text = f"{header}.{encoded(body)}"
    return f"{text}.{encoded(keys.signers[0].sign(text.encode()))}"


def read(token: str, keys: Keys = KEYS) -> object:
    return GrantReader(keys.ring, audience=trust.AUDIENCE).read(token)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 10**30},
        {"exp": -1},
        {"exp": 1e9},
        {"exp": "tomorrow"},
        {"iat": -(10**30)},
        {"rev": 0},
        {"rev": True},
        {"dig": "../../../results/acme/other"},
        {"dig": "A" * 64},
        {"dig": "a" * 64 + "\n"},
        {"jti": None},
        {"roles": "user"},
        {"act": "olga"},
        {"par": ""},
        {"pln": "p" * 64},
    ],
)
def test_claims_that_a_clock_a_key_or_a_path_would_choke_on_are_no_grant(claims: dict[str, Any]) -> None:
    with pytest.raises(BadSignature):
        read(signed(claims))


def test_of_a_claim_that_is_there_twice_one_is_meant_and_signed_for() -> None:
    _, sealed, _ = TOKEN.split(".")
    twice = decoded(sealed)[:-1] + b',"tenant":"evil"}'
    narrow = trust.keys(trust.scope(tenants=("default",)))
    with pytest.raises(BadSignature, match="tenant 'evil'"):
        read(signed({}, narrow, payload=twice), narrow)


def test_a_producer_cannot_lay_a_later_revision_over_a_result() -> None:
    """Its key may sign for its tenant: with a revision it could name the request of anybody there."""
    with pytest.raises(Denied, match="revision 2"):
        trust.token(trust.mint(KEYS), revision=2, actor="alice")
    for claims in ({"rev": 2}, {"rev": 2, "act": {"sub": "alice"}}):
        with pytest.raises(BadSignature, match="revision 2"):
            read(signed(claims))
    operator = trust.keys(trust.scope(purposes=(GRANT, REVISE)))
    with pytest.raises(BadSignature, match="takes an actor"):
        read(signed({"rev": 2}, operator), operator)
    assert read(signed({"rev": 2, "act": {"sub": "alice"}}, operator), operator)


async def test_a_grant_from_the_future_cannot_outlive_its_revocation() -> None:
    clock, revocations = Clock(), MemoryRevocations()
    gate = trust.gate(KEYS, clock, revocations=revocations)
    asked = build.request()
    ahead = clock() + timedelta(hours=1)

    def granted(now: datetime) -> Message:
        token = trust.token(
            trust.mint(KEYS), request_id=asked.id, digest=asked.digest(), now=now, expires=now + timedelta(days=9)
        )
        return build.message(asked, grant=token)

    hoarded = granted(ahead)
    with pytest.raises(Denied, match="ahead of this worker's clock"):
        await gate.standing(gate.verify(hoarded))
    await gate.standing(gate.verify(granted(clock() + timedelta(seconds=CLOCK_SKEW_SECONDS - 1))))


# Ids that look alike ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tenant", ["Default", "default ", "default/", "def\u0430ult", "default\x00", "", "*"])
def test_what_looks_like_the_tenant_is_another_one(tenant: str) -> None:
    keys = trust.keys(trust.scope(tenants=("default",)))
    with pytest.raises(BadSignature, match="may not sign for tenant"):
        read(signed({"tenant": tenant}, keys), keys)


@pytest.mark.parametrize(
    ("patterns", "name", "holds"),
    [
        (("acme",), "acme-evil", False),
        (("acme-*",), "acme", False),
        (("acme*",), "acme", True),
        (("",), "acme", False),
        ((), "acme", False),
        (("*acme",), "acme", False),
        (("a*c",), "abc", False),
        (("**",), "*x", True),
    ],
)
def test_a_pattern_is_a_name_or_a_beginning(patterns: tuple[str, ...], name: str, holds: bool) -> None:
    keys = trust.keys(trust.scope(tenants=patterns))
    token = signed({"tenant": name}, keys)
    if holds:
        assert read(token, keys)
    else:
        with pytest.raises(BadSignature):
            read(token, keys)


@pytest.mark.parametrize(("field", "value"), [("id", "Order-7"), ("tenant", "other"), ("revision", 2)])
def test_a_grant_is_for_one_place_alone(field: str, value: object) -> None:
    gate = trust.gate(KEYS, Clock())
    asked = build.request(id="order-7")
    message = build.message(asked, grant=trust.token(trust.mint(KEYS), request_id="order-7", digest=asked.digest()))
    assert gate.verify(message)
    with pytest.raises(ForgedMessage):
        gate.verify(message.changed(**{field: value}))


# The ring ----------------------------------------------------------------------------------------------------


def test_one_key_under_two_ids_is_refused() -> None:
    """Its holder would choose the wider scope, and outlive the revocation of one id."""
    key = generate("web")
    with pytest.raises(SettingsError, match="are one key"):
        KeyRing([trust.public(key), PublicKey("admin", key.public, trust.scope(roles=("*",)))])


@pytest.mark.parametrize("name", ["", "two words", "new\nline", "n\u00e4me", "x" * 200])
def test_an_id_that_a_checkpoint_cannot_spell_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="no name of a key"):
        kid_of(name, bytes(32))
    with pytest.raises(SettingsError, match="is no id"):
        KeyRing([PublicKey(name if len(name) != 0 else " ", bytes(32))])


def test_a_signature_has_one_spelling() -> None:
    """The order of the curve added to a signature's second half is the same signature to careless arithmetic."""
    order = 2**252 + 27742317777372353535851937790883648493
    head, payload, signature = TOKEN.split(".")
    raw = decoded(signature)
    bent = raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(BadSignature):
        read(f"{head}.{payload}.{encoded(bent)}")


# Policy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "roles",
    [
        ("Admin",),
        ("admin ",),
        ("adm\u0456n",),
        ("admin\x00",),
        ('x"], "admin',),
        ('Role::"admin"',),
        ("",),
        (),
    ],
)
def test_no_role_but_the_very_one_is_admin(roles: tuple[str, ...]) -> None:
    answer = trust.policy().decide(Question(roles, "acme", Act.MODEL_OVERRIDE, "gpt-4"))
    assert not answer.allowed


def test_a_name_that_is_no_text_is_denied_and_not_an_error() -> None:
    """A model can call for a tool by half a surrogate pair."""
    for roles in (("user",), ("nobody",)):
        answer = trust.policy().decide(Question(roles, "acme", Act.TOOL_USE, "t\ud800"))
        assert not answer.allowed, roles


def test_a_careless_mint_is_found_out_at_the_hop() -> None:
    signer = KEYS.signers[0]
    wide = PublicKey(signer.kid, signer.public, trust.scope(purposes=(GRANT, REVISE), roles=("*",), subjects=("*",)))
    careless = Mint(signer, wide, audience=trust.AUDIENCE)
    with pytest.raises(BadSignature, match="role 'admin'"):
        read(trust.token(careless, roles=("admin",)))
    with pytest.raises(BadSignature, match="revision 3"):
        read(trust.token(careless, revision=3, actor="olga"))


# Times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_calendar_has_is_malformed_and_goes_round_nowhere(time: str) -> None:
    """It was an error that nobody expected, so the message went back onto its queue, for ever."""
    raw = {**json.loads(build.message().to_json()), "accepted_at": time}
    with pytest.raises(MalformedMessage, match="outside of the years"):
        parse_versioned(Message, raw)
    with pytest.raises(InvalidInput, match="deadline: lies outside of the years"):
        parse_strict(Request, {"text": "hello", "deadline": time})


# Whatever stands where a value belongs: nothing but the errors that are expected ------------------------------------

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -(2**63), 2**64, 10**400, 1e308]),
    st.text(max_size=20),
    st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "\x00", "\ud800", "*", "../x", TOKEN]),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.sampled_from(["sub", "encoding", "data", "label"]), st.text(max_size=3), max_size=2),
)


@given(st.sampled_from(sorted({"act", "par", "pln", "rev", *json.loads(decoded(TOKEN.split(".")[1]))})), ODD)
@settings(max_examples=300)
def test_no_claim_is_an_error_that_nobody_expects(claim: str, odd: object) -> None:
    with contextlib.suppress(BadSignature):
        read(signed({claim: odd}))


@given(st.sampled_from(["alg", "kid", "typ", "crit"]), ODD)
def test_no_header_is_an_error_that_nobody_expects(name: str, odd: object) -> None:
    header = {"alg": "EdDSA", "kid": KEYS.signers[0].kid, "typ": TYPE, name: odd}
    with contextlib.suppress(BadSignature):
        read(f"{encoded(json.dumps(header).encode())}.{TOKEN.partition('.')[2]}")


@given(st.integers(0, 30), ODD)
@settings(max_examples=300)
def test_no_field_of_a_message_is_an_error_that_nobody_expects(place: int, odd: object) -> None:
    gate = trust.gate(KEYS, Clock())
    raw = json.loads(build.message(grant=TOKEN).to_json())
    names = sorted({*raw, "agent_type", "intent", "routed_at", "deadline", "session_id", "classify_ms"})
    raw[names[place % len(names)]] = odd
    with contextlib.suppress(MalformedMessage, NewerSchema):
        message = parse_versioned(Message, raw)
        decode_body(message.body)
        gate.verify(message)

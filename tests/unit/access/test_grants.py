"""A grant says what its key may say, and nothing that was changed afterwards."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.access.grants import NARROW, REVISE, Grant, GrantReader, Mint
from tasks.access.signing import GRANT, KeyRing, Keys, PublicKey, decoded, encoded, generate
from tasks.errors import BadSignature, Denied
from tests.support import build, trust

KEYS = trust.keys(trust.scope(), trust.scope(purposes=(NARROW,), subjects=("*",), roles=("*",)))
TOKEN = trust.token(trust.mint(KEYS))


def reader(keys: Keys = KEYS, audience: str = trust.AUDIENCE) -> GrantReader:
    return GrantReader(keys.ring, audience=audience)


def test_a_grant_is_a_compact_jws_that_says_who_and_what() -> None:
    header, payload, _ = TOKEN.split(".")
    assert json.loads(decoded(header)) == {"alg": "EdDSA", "kid": KEYS.signers[0].kid, "typ": "sluice-grant+jwt"}
    assert set(json.loads(decoded(payload))) == {"sub", "tenant", "roles", "aud", "iat", "exp", "jti", "dig"}
    grant = reader().read(TOKEN)
    assert (grant.subject, grant.actor, grant.claims.roles) == ("alice", "alice", ("user",))
    assert grant.claims.exp == int((build.EPOCH + timedelta(days=14)).timestamp())


def test_what_was_read_once_is_remembered_by_its_exact_text() -> None:
    reading = reader()
    assert reading.read(TOKEN) is reading.read(str(TOKEN))


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="ascii"))
def test_no_changed_character_verifies(place: int, character: str) -> None:
    changed = TOKEN[:place] + character + TOKEN[place + 1 :]
    if changed == TOKEN:
        return
    with pytest.raises(BadSignature):
        reader().read(changed)


@given(st.text(max_size=60))
def test_any_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadSignature, match="grant"):
        reader().read(text)


@pytest.mark.parametrize("token", ["", ".", "..", "a.b", "a.b.c.d", TOKEN + ".x", TOKEN + "=", "é" * 30, "x" * 9000])
def test_what_is_no_jws_is_refused(token: str) -> None:
    with pytest.raises(BadSignature):
        reader().read(token)


def _forged(header: dict[str, str], key_signs: bool = True) -> str:
    _, payload, _ = TOKEN.split(".")
    head = encoded(json.dumps(header).encode())
    signed = f"{head}.{payload}"
    signature = KEYS.signers[0].sign(signed.encode()) if key_signs else b""
    return f"{signed}.{encoded(signature)}"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none", "kid": KEYS.signers[0].kid, "typ": "sluice-grant+jwt"},
        {"alg": "HS256", "kid": KEYS.signers[0].kid, "typ": "sluice-grant+jwt"},
        {"alg": "EdDSA", "kid": KEYS.signers[0].kid, "typ": "JWT"},
        {"alg": "EdDSA", "kid": "nobody", "typ": "sluice-grant+jwt"},
        {"alg": "EdDSA", "kid": KEYS.signers[0].kid, "typ": "sluice-grant+jwt", "jwk": "mine"},
        {"alg": "EdDSA", "kid": KEYS.signers[0].kid},
    ],
)
def test_other_algorithms_types_and_headers_are_refused(header: dict[str, str]) -> None:
    for key_signs in (True, False):
        with pytest.raises(BadSignature):
            reader().read(_forged(header, key_signs))


def test_a_grant_of_another_deployment_is_refused() -> None:
    with pytest.raises(BadSignature, match="is for 'sluice'"):
        reader(audience="elsewhere").read(TOKEN)


def test_a_key_outside_the_ring_signs_in_vain() -> None:
    with pytest.raises(BadSignature, match="no key"):
        reader().read(trust.token(trust.mint(trust.keys())))


OUTSIDE = [
    ({"tenant": "evil"}, "tenant 'evil'"),
    ({"subject": "mallory"}, "subject 'mallory'"),
    ({"roles": ("user", "admin")}, "role 'admin'"),
    ({"actor": "mallory"}, "actor|subject 'mallory'"),
]


@pytest.mark.parametrize(("fields", "told"), OUTSIDE)
def test_a_key_signs_within_its_scope_alone(fields: dict[str, object], told: str) -> None:
    keys = trust.keys(trust.scope(tenants=("default",)))
    with pytest.raises(Denied, match=told):
        trust.token(trust.mint(keys), **fields)
    # And if its owner signs all the same, nobody believes it.
    signer = keys.signers[0]
    wide = trust.scope(tenants=("*",), subjects=("*",), roles=("*",))
    careless = Mint(signer, PublicKey(signer.kid, signer.public, wide), audience=trust.AUDIENCE)
    with pytest.raises(BadSignature, match=told):
        reader(keys).read(trust.token(careless, **fields))


def test_keys_rotate_with_several_valid_at_once() -> None:
    old, new = generate("alice"), generate("alice")
    ring = KeyRing([trust.public(new), trust.public(old)])
    tokens = [trust.token(trust.mint(Keys([key], ring))) for key in (old, new)]
    assert [reader(Keys([], ring)).read(token).subject for token in tokens] == ["alice", "alice"]
    retired = reader(Keys([], KeyRing([trust.public(new)])))
    with pytest.raises(BadSignature):
        retired.read(tokens[0])
    assert retired.read(tokens[1])


def test_an_operator_acts_and_the_subject_stays() -> None:
    keys = trust.keys(trust.scope(), trust.scope(purposes=(GRANT, REVISE), subjects=("*",), roles=("*",)))
    first = reader(keys).read(trust.token(trust.mint(keys)))
    operator = Mint(keys.signers[1], keys.public(keys.signers[1]), audience=trust.AUDIENCE)
    again = operator.again(
        first, actor="olga", revision=2, now=build.EPOCH + timedelta(days=20), expires=build.EPOCH + timedelta(days=34)
    )
    grant = reader(keys).read(again)
    assert (grant.subject, grant.actor, grant.claims.rev) == ("alice", "olga", 2)
    assert (grant.claims.jti, grant.claims.dig) == (first.claims.jti, first.claims.dig)


# Child grants -------------------------------------------------------------------------------------


def parent(**fields: object) -> Grant:
    return reader().read(trust.token(trust.mint(KEYS), **fields))


def planner() -> Mint:
    return trust.mint(KEYS, NARROW)


def narrow(minter: Mint, grant: Grant, **fields: object) -> str:
    standard = {"plan": "p" * 64, "step": "s1", "agents": ("responder",), "now": build.EPOCH}
    return minter.narrow(grant, **{**standard, **fields})  # type: ignore[arg-type]


def test_a_child_carries_its_parent_and_its_plan() -> None:
    whole = parent()
    child = reader().read(narrow(planner(), whole, roles=()))
    assert (child.subject, child.claims.roles, child.claims.pln) == ("alice", (), "p" * 64)
    assert (child.claims.stp, child.claims.agt) == ("s1", ("responder",))
    assert child.kids == (KEYS.signers[1].kid, KEYS.signers[0].kid)


def test_a_child_only_narrows() -> None:
    for fields in (
        {"roles": ("admin",)},
        {"expires": build.EPOCH + timedelta(days=15)},
        {"plan": ""},
        {"step": ""},
        {"agents": ()},
    ):
        with pytest.raises(Denied, match="only narrow"):
            narrow(planner(), parent(), **fields)


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("roles", ["user", "admin"]),
        ("tenant", "evil"),
        ("sub", "bob"),
        ("jti", "other"),
        ("dig", "0" * 64),
        ("rev", 2),
        ("exp", 2**37),
        ("iat", 0),
        ("act", {"sub": "olga"}),
        ("pln", ""),
        ("stp", ""),
        ("agt", []),
    ],
)
def test_a_planner_that_widens_is_not_believed(claim: str, value: object) -> None:
    header, payload, _ = narrow(planner(), parent()).split(".")
    claims = {**json.loads(decoded(payload)), claim: value}
    signed = f"{header}.{encoded(json.dumps(claims).encode())}"
    forged = f"{signed}.{encoded(KEYS.signers[1].sign(signed.encode()))}"
    with pytest.raises(BadSignature, match="wider than its parent"):
        reader().read(forged)


def test_a_child_has_no_children() -> None:
    child = reader().read(narrow(planner(), parent()))
    with pytest.raises(Denied, match="child itself"):
        narrow(planner(), child)


def test_a_planners_key_grants_nothing_by_itself_and_a_doors_key_no_children() -> None:
    with pytest.raises(BadSignature, match="may not sign for 'grant'"):
        reader().read(trust.token(planner()))
    with pytest.raises(BadSignature, match="may not sign for 'narrow'"):
        reader().read(narrow(trust.mint(KEYS, GRANT), parent()))


def test_a_planners_key_narrows_within_its_scope_only() -> None:
    bounded = trust.keys(trust.scope(), trust.scope(purposes=(NARROW,), tenants=("other",), subjects=("*",)))
    whole = reader(bounded).read(trust.token(trust.mint(bounded)))
    with pytest.raises(Denied, match="may not sign for tenant 'default'"):
        narrow(trust.mint(bounded, NARROW), whole)


def test_only_a_child_is_for_a_step() -> None:
    header, payload, _ = trust.token(trust.mint(KEYS)).split(".")
    claims = {**json.loads(decoded(payload)), "stp": "s1"}
    signed = f"{header}.{encoded(json.dumps(claims).encode())}"
    with pytest.raises(BadSignature, match="no parent"):
        reader().read(f"{signed}.{encoded(KEYS.signers[0].sign(signed.encode()))}")

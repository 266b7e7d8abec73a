"""Keys sign, are found by purpose, and are read from JWK sets."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.access import signing
from tasks.access.signing import GRANT, KeyRing, Keys, PublicKey, Scope, covers, generate
from tasks.errors import BadSignature, NotReady, SettingsError
from tests.support import trust

KEY = generate("one")


@given(st.binary(max_size=200), st.integers(0, 63))
def test_a_signature_holds_for_its_bytes_alone(data: bytes, place: int) -> None:
    signature = KEY.sign(data)
    signing.verify_with(KEY.public, data, signature)
    damaged = bytearray(signature)
    damaged[place] ^= 1
    for bad in (bytes(damaged), signature[:-1], b"", signature + b"\0"):
        with pytest.raises(BadSignature):
            signing.verify_with(KEY.public, data, bad)
    with pytest.raises(BadSignature):
        signing.verify_with(KEY.public, data + b"x", signature)


def test_bytes_moved_between_data_and_signature_do_not_verify() -> None:
    signed = KEY.sign(b"data") + b"data"
    with pytest.raises(BadSignature):
        signing.verify_with(KEY.public, signed[65:], signed[:65])


@pytest.mark.parametrize(
    ("patterns", "name", "expected"),
    [
        (("acme",), "acme", True),
        (("acme",), "acme2", False),
        (("acme*",), "acme2", True),
        (("*",), "anything", True),
        (("*",), "", True),
        ((), "acme", False),
        (("a*c",), "abc", False),
        (("audit:*",), "audit:intent", True),
        (("audit:*",), "grant", False),
    ],
)
def test_a_pattern_is_a_name_or_a_beginning(patterns: tuple[str, ...], name: str, expected: bool) -> None:
    assert covers(patterns, name) is expected


def test_the_ring_says_who_may_sign_what() -> None:
    ring = KeyRing([trust.public(KEY, Scope(purposes=("audit:intent",)))])
    assert ring.verify(KEY.kid, b"x", KEY.sign(b"x"), purpose="audit:intent").name == "one"
    with pytest.raises(BadSignature, match="may not sign for 'grant'"):
        ring.verify(KEY.kid, b"x", KEY.sign(b"x"), purpose=GRANT)
    with pytest.raises(BadSignature, match="no key"):
        ring.verify("other", b"x", KEY.sign(b"x"), purpose=GRANT)


def test_two_keys_of_one_id_are_refused() -> None:
    with pytest.raises(SettingsError, match="two keys with the id"):
        KeyRing([trust.public(KEY), trust.public(KEY)])


def test_a_process_signs_with_the_first_key_of_the_purpose() -> None:
    old, new = generate("alice"), generate("alice")
    assert old.kid != new.kid
    keys = Keys([new, old], KeyRing([trust.public(new), trust.public(old)]))
    assert keys.signer(GRANT).kid == new.kid
    assert keys.signer(GRANT, "alice").kid == new.kid
    assert keys.signer(GRANT, old.kid).kid == old.kid
    for purpose, name in ((GRANT, "bob"), ("checkpoint", None)):
        with pytest.raises(NotReady, match="sluice keys new"):
            keys.signer(purpose, name)


def test_an_own_key_that_the_ring_does_not_know_is_refused_at_start() -> None:
    with pytest.raises(NotReady, match="not in the ring"):
        Keys([KEY], KeyRing())
    with pytest.raises(NotReady, match="not the one of that id"):
        Keys([KEY], KeyRing([PublicKey(KEY.kid, generate("x").public, trust.scope())]))


def test_sets_are_read_as_they_were_written() -> None:
    ring = signing.parse_ring(signing.dump_ring([trust.public(KEY)]), "ring.json")
    assert list(ring) == [trust.public(KEY)]
    [read] = signing.parse_private(signing.dump_private([KEY]), "keys.json")
    assert (read.kid, read.public, read.sign(b"x")) == (KEY.kid, KEY.public, KEY.sign(b"x"))


def test_a_key_does_not_show_itself() -> None:
    assert signing.encoded(KEY.seed) not in repr(KEY)
    assert KEY.seed.hex() not in repr(vars(KEY)["kid"])


def _jwk(**changes: object) -> bytes:
    jwk = json.loads(signing.dump_private([KEY]))["keys"][0]
    return json.dumps({"keys": [{**jwk, **changes}]}).encode()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no JWK set"),
        (b"{}", "no JWK set"),
        (b"\xff", "no JWK set"),
        (_jwk(kty="RSA"), "no JWK set"),
        (_jwk(crv="X25519"), "no JWK set"),
        (_jwk(d="AAAA"), "not 32 bytes"),
        (_jwk(d="%%%"), "not 32 bytes"),
        (_jwk(d=None), "no private half"),
        (_jwk(x=signing.encoded(generate("x").public)), "do not belong together"),
    ],
)
def test_what_is_no_private_set_is_refused_without_showing_it(data: bytes, told: str) -> None:
    with pytest.raises(SettingsError, match=told) as raised:
        signing.parse_private(data, "keys.json")
    assert "keys.json" in str(raised.value)
    assert signing.encoded(KEY.seed) not in str(raised.value)


def test_a_private_key_in_the_ring_is_refused() -> None:
    with pytest.raises(SettingsError, match="private half"):
        signing.parse_ring(signing.dump_private([KEY]), "ring.json")


@given(st.binary(max_size=40))
def test_base64url_has_one_spelling(raw: bytes) -> None:
    text = signing.encoded(raw)
    assert signing.decoded(text) == raw
    for other in (text + "=", text + "A", text + "\n", "!" + text):
        with contextlib.suppress(ValueError):
            assert signing.decoded(other) != raw

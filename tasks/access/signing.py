"""Ed25519 keys: who may sign what, signing and verifying.

Keys are JWK sets (RFC 7517, RFC 8037): ``{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": …, "x": …, "scope": …}]}``.
A private set has ``d`` as well. The ring, a set of public keys, is the authority on scopes: what a key may sign is read
there and nowhere else. PyNaCl does the arithmetic: of the libraries at hand it imports and verifies the fastest.
"""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final, Literal, Protocol

import msgspec
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError
from nacl.exceptions import ValueError as WrongSize

from tasks.errors import BadSignature, NotReady, SettingsError

SIGNATURE_BYTES: Final = 64
_KEY_BYTES: Final = 32
_KID: Final = re.compile(r"[!-~]{1,128}").fullmatch
"""A signature's line in a checkpoint has its key's id between two spaces."""

GRANT: Final = "grant"
"""The purpose of a key that signs grants."""
CHECKPOINT: Final = "checkpoint"
"""The purpose of a key that signs the audit's checkpoints."""


def audit_purpose(pool: str) -> str:
    """Return the purpose of a key that signs the audit segments of ``pool`` (a pool, ``door`` or ``sweeper``)."""
    return f"audit:{pool}"


class Scope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key may sign. Each entry is a name, or the beginning of one and ``*``.

    ``purposes`` are :data:`GRANT`, :data:`CHECKPOINT`, :func:`audit_purpose`; the others bound the grants of a key:
    it may sign for these tenants, subjects and roles.
    """

    purposes: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


def covers(patterns: Iterable[str], name: str) -> bool:
    """Tell whether one of ``patterns`` is ``name``, or its beginning followed by ``*``."""
    return any(name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns)


class PublicKey(msgspec.Struct, frozen=True):
    """A key that somebody else's signature is checked with. ``raw`` is 32 bytes."""

    kid: str
    raw: bytes
    scope: Scope = Scope()

    @property
    def name(self) -> str:
        """Return whose key it is: its id without the fingerprint."""
        return self.kid.rpartition(".")[0] or self.kid


class Signer(Protocol):
    """Something that signs: a key in memory, or one that never leaves AWS KMS."""

    @property
    def kid(self) -> str:
        """Return the id of the key."""

    @property
    def public(self) -> bytes:
        """Return its public half, 32 bytes."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature of ``data``, 64 bytes."""


class SigningKey:
    """A private key in memory. ``seed`` is 32 bytes."""

    def __init__(self, kid: str, seed: bytes) -> None:
        self.kid = kid
        self.seed = seed
        self.public, self._secret = crypto_sign_seed_keypair(seed)

    def __repr__(self) -> str:
        """Return the id alone: a key must not get into a log."""
        return f"SigningKey({self.kid!r})"

    def sign(self, data: bytes) -> bytes:
        """See :class:`Signer`."""
        return crypto_sign(data, self._secret)[:SIGNATURE_BYTES]


def generate(name: str) -> SigningKey:
    """Return a new key; its id is ``name``, a dot and a fingerprint, so that ids of later keys differ."""
    seed = os.urandom(_KEY_BYTES)
    return SigningKey(kid_of(name, crypto_sign_seed_keypair(seed)[0]), seed)


def kid_of(name: str, public: bytes) -> str:
    """Return the id of the key of ``name`` whose public half is ``public``; :class:`SettingsError` for no name."""
    kid = f"{name}.{sha256(public).hexdigest()[:12]}"
    if not name or not _KID(kid):
        raise SettingsError(f"{name!r} is no name of a key: up to 115 visible ASCII characters, no space")
    return kid


def verify_with(public: bytes, data: bytes, signature: bytes) -> None:
    """Raise :class:`BadSignature` unless ``signature`` is that of ``data`` by ``public``."""
    try:
        crypto_sign_open(signature + data, public)
    except (BadSignatureError, WrongSize) as error:
        raise BadSignature("the signature does not verify") from error
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignature("the signature does not verify")


class KeyRing:
    """The public keys that this process trusts, by id, each within its scope."""

    def __init__(self, keys: Iterable[PublicKey] = ()) -> None:
        self._keys: dict[str, PublicKey] = {}
        known: dict[bytes, str] = {}
        for key in keys:
            if not _KID(key.kid):
                raise SettingsError(f"key ring: {key.kid!r} is no id: 1 to 128 visible ASCII characters, no space")
            if key.kid in self._keys:
                raise SettingsError(f"key ring: two keys with the id {key.kid!r}; ids are unique")
            if (twin := known.setdefault(key.raw, key.kid)) != key.kid:
                # Whoever holds it could choose the wider scope, and outlive a revocation by id.
                raise SettingsError(f"key ring: {twin!r} and {key.kid!r} are one key: leave one of them")
            self._keys[key.kid] = key

    def __iter__(self) -> Iterator[PublicKey]:
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, kid: str, purpose: str) -> PublicKey:
        """Return the key ``kid``; raises :class:`BadSignature` where none has it, or may not sign for ``purpose``."""
        key = self._keys.get(kid)
        if key is None:
            raise BadSignature(f"no key {kid!r} in the ring")
        if not covers(key.scope.purposes, purpose):
            raise BadSignature(f"key {kid!r} may not sign for {purpose!r}")
        return key

    def get(self, kid: str) -> PublicKey | None:
        """Return the key ``kid``, or None."""
        return self._keys.get(kid)

    def verify(self, kid: str, data: bytes, signature: bytes, *, purpose: str) -> PublicKey:
        """Return the key if ``signature`` is its own over ``data`` and it may sign for ``purpose``.

        Raises:
            BadSignature: it is not, or may not.
        """
        key = self.find(kid, purpose)
        verify_with(key.raw, data, signature)
        return key


class Keys:
    """What a process signs with, and what it trusts. ``signers`` in the order of preference."""

    def __init__(self, signers: Sequence[Signer], ring: KeyRing) -> None:
        self.ring = ring
        self._signers = tuple(signers)
        for signer in signers:
            trusted = ring.get(signer.kid)
            if trusted is None:
                raise NotReady(f"signing: key {signer.kid!r} is not in the ring: add its public half to signing.ring")
            if trusted.raw != signer.public:
                raise NotReady(f"signing: key {signer.kid!r} is not the one of that id in the ring")

    @property
    def signers(self) -> tuple[Signer, ...]:
        """Return what this process signs with."""
        return self._signers

    def signer(self, purpose: str, name: str | None = None) -> Signer:
        """Return the first key that may sign for ``purpose``; with ``name`` only of that name or id.

        Raises:
            NotReady: this process has none; the message says how to make one.
        """
        for signer in self._signers:
            key = self.ring.get(signer.kid)
            if key and covers(key.scope.purposes, purpose) and name in (None, key.name, key.kid):
                return signer
        wanted = f" named {name!r}" if name else ""
        raise NotReady(
            f"signing: no key{wanted} here may sign for {purpose!r}: make one with "
            f"`sluice keys new {name or 'NAME'} --purpose {purpose}` and name it in signing.keys"
        )

    def public(self, signer: Signer) -> PublicKey:
        """Return the public half of ``signer``, with its scope."""
        key = self.ring.get(signer.kid)
        if key is None:
            raise NotReady(f"signing: key {signer.kid!r} is not in the ring")
        return key


# JWK sets -----------------------------------------------------------------------------------------


class _Jwk(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    kid: str
    x: str
    d: str | None = None
    scope: Scope | None = None


class _JwkSet(msgspec.Struct, frozen=True):
    keys: tuple[_Jwk, ...]


def parse_ring(data: bytes, source: str) -> KeyRing:
    """Return the public keys in the JWK set ``data``; ``source`` is named in errors.

    Raises:
        SettingsError: it is no such set, or holds a private key.
    """
    found = _parse(data, source)
    if private := [jwk.kid for jwk in found if jwk.d]:
        raise SettingsError(f"{source}: key {private[0]!r} has its private half ('d') in the ring: take it out")
    return KeyRing(PublicKey(jwk.kid, _bytes(jwk.x, jwk.kid, source), jwk.scope or Scope()) for jwk in found)


def parse_private(data: bytes, source: str) -> list[SigningKey]:
    """Return the private keys in the JWK set ``data``; errors as in :func:`parse_ring`."""
    keys = []
    for jwk in _parse(data, source):
        if jwk.d is None:
            raise SettingsError(f"{source}: key {jwk.kid!r} has no private half ('d')")
        key = SigningKey(jwk.kid, _bytes(jwk.d, jwk.kid, source))
        if key.public != _bytes(jwk.x, jwk.kid, source):
            raise SettingsError(f"{source}: the halves of key {jwk.kid!r} do not belong together")
        keys.append(key)
    return keys


def dump_ring(keys: Iterable[PublicKey]) -> bytes:
    """Return public keys as a JWK set."""
    jwks = [_Jwk(kty="OKP", crv="Ed25519", kid=key.kid, x=encoded(key.raw), scope=key.scope) for key in keys]
    return _dump(jwks)


def dump_private(keys: Iterable[SigningKey]) -> bytes:
    """Return private keys as a JWK set. Keep it where nobody else reads it."""
    jwks = [_Jwk(kty="OKP", crv="Ed25519", kid=key.kid, x=encoded(key.public), d=encoded(key.seed)) for key in keys]
    return _dump(jwks)


def encoded(raw: bytes) -> str:
    """Return ``raw`` in URL-safe base64 without padding, as JWS and JWK want it."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str | bytes) -> bytes:
    """Return what :func:`encoded` made ``text`` of.

    Raises:
        ValueError: it is not base64, or not the one spelling of its bytes.
    """
    spelt = text.encode() if isinstance(text, str) else text
    raw = urlsafe_b64decode(spelt + b"=" * (-len(spelt) % 4))
    if urlsafe_b64encode(raw).rstrip(b"=") != spelt:
        raise ValueError("not canonical base64url")
    return raw


def _dump(jwks: list[_Jwk]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(_JwkSet(tuple(jwks))), indent=2) + b"\n"


def _parse(data: bytes, source: str) -> tuple[_Jwk, ...]:
    try:
        return msgspec.json.decode(data, type=_JwkSet).keys
    except msgspec.DecodeError as error:
        # msgspec's words name the key, not its value.
        raise SettingsError(f"{source}: no JWK set of Ed25519 keys: {error}") from None


def _bytes(text: str, kid: str, source: str) -> bytes:
    try:
        raw = decoded(text)
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise SettingsError(f"{source}: key {kid!r}: not {_KEY_BYTES} bytes in base64url")
    return raw

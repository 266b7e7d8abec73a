"""Grants: who asks, what for, until when, signed. Compact JWS (RFC 7515) with EdDSA (RFC 8037) on raw Ed25519.

A JWT library was measured and left out: it costs 20 ms of every process's start and as much again as the arithmetic for
each token, to read headers of which exactly one spelling is allowed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from math import ceil
from typing import Annotated, Final

import msgspec

from tasks.access.signing import GRANT, KeyRing, PublicKey, Signer, covers, decoded, encoded
from tasks.contracts.base import sha256
from tasks.errors import BadSignature, Denied

NARROW: Final = "narrow"
"""The purpose of a key that signs child grants, which can only narrow the grant that they carry."""
REVISE: Final = "revise"
"""The purpose that a key needs beside :data:`GRANT` to open a later revision: without it a producer's key could lay a
newer result over that of anybody in its tenant."""
TYPE: Final = "sluice-grant+jwt"
MAX_TOKEN: Final = 8 * 1024
"""Characters of a grant that is looked at, a child's parent included."""
_REMEMBERED: Final = 4096


class Actor(msgspec.Struct, frozen=True):
    """Who acts for the subject (RFC 8693)."""

    sub: str


Moment = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]
"""Unix seconds up to the year 9999: no time that a clock or a calendar chokes on."""


class Claims(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a grant says. Times are Unix seconds.

    ``jti`` is the request's id and ``dig`` the SHA-256 of its body; ``rev`` is the revision that may be written.
    ``act`` is the operator who opened a later revision. A child grant carries its parent as ``par``, the digest of its
    plan as ``pln``, the one step of it that it is for as ``stp``, and as ``agt`` the agent types that may do it.
    """

    sub: str
    tenant: str
    roles: tuple[str, ...]
    aud: str
    iat: Moment
    exp: Moment
    jti: str
    dig: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    rev: Annotated[int, msgspec.Meta(ge=1)] = 1
    act: Actor | None = None
    par: str | None = None
    pln: str | None = None
    stp: str | None = None
    agt: tuple[str, ...] = ()


class Grant(msgspec.Struct, frozen=True):
    """A verified grant. ``kids`` are the keys that vouch for it: its own, then its parent's."""

    claims: Claims
    kids: tuple[str, ...] = ()
    token: str = ""

    @property
    def subject(self) -> str:
        """Return who asks."""
        return self.claims.sub

    @property
    def actor(self) -> str:
        """Return who acts: the operator where there is one, else the subject."""
        return self.claims.act.sub if self.claims.act else self.claims.sub


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alg: str
    kid: str
    typ: str


_HEADER: Final = msgspec.json.Decoder(_Header)
_CLAIMS: Final = msgspec.json.Decoder(Claims)
_ENCODER: Final = msgspec.json.Encoder()


class Mint:
    """Signs the grants of one key, within its scope."""

    def __init__(self, signer: Signer, key: PublicKey, *, audience: str) -> None:
        self._signer = signer
        self._key = key
        self._audience = audience
        self._head = f"{encoded(_ENCODER.encode(_Header('EdDSA', signer.kid, TYPE)))}."

    @property
    def key(self) -> PublicKey:
        """Return the key that signs, with its scope."""
        return self._key

    def check(self, subject: str, tenant: str, roles: Sequence[str]) -> None:
        """Raise :class:`Denied` unless the key may sign for these; the message names what is out of its scope."""
        if fault := _outside(self._key, tenant, (subject,), roles):
            raise Denied(f"key {self._key.kid!r} may not sign for {fault}")

    def mint(
        self,
        *,
        subject: str,
        tenant: str,
        roles: Sequence[str],
        request_id: str,
        digest: str,
        now: datetime,
        expires: datetime,
        revision: int = 1,
        actor: str | None = None,
    ) -> str:
        """Return a signed grant.

        Raises:
            Denied: the key may not sign this; the message names what is out of its scope.
        """
        claims = Claims(
            sub=subject,
            tenant=tenant,
            roles=tuple(roles),
            aud=self._audience,
            iat=int(now.timestamp()),
            exp=ceil(expires.timestamp()),
            jti=request_id,
            dig=digest,
            rev=revision,
            act=Actor(actor) if actor else None,
        )
        if fault := outside(self._key, claims):
            raise Denied(f"key {self._key.kid!r} may not sign for {fault}")
        return self._signed(claims)

    def again(self, grant: Grant, *, actor: str, revision: int, now: datetime, expires: datetime) -> str:
        """Return a grant for a later revision of the same request: ``actor`` acts, the subject stays.

        For redrives and answers to escalations. Errors as in :meth:`mint`.
        """
        old = grant.claims
        return self.mint(
            subject=old.sub,
            tenant=old.tenant,
            roles=old.roles,
            request_id=old.jti,
            digest=old.dig,
            now=now,
            expires=expires,
            revision=revision,
            actor=actor,
        )

    def narrow(
        self,
        grant: Grant,
        *,
        plan: str,
        step: str,
        agents: Sequence[str],
        now: datetime,
        roles: Iterable[str] | None = None,
        expires: datetime | None = None,
    ) -> str:
        """Return a child of ``grant`` for one step of the plan whose SHA-256 is ``plan``; it can only narrow.

        ``agents`` are the agent types that may do the step.

        Raises:
            Denied: it would not narrow, ``grant`` is a child itself, or the key may not sign for its tenant, subject
                or roles.
        """
        old = grant.claims
        claims = msgspec.structs.replace(
            old,
            roles=old.roles if roles is None else tuple(roles),
            iat=max(int(now.timestamp()), old.iat),
            exp=old.exp if expires is None else ceil(expires.timestamp()),
            par=grant.token,
            pln=plan,
            stp=step,
            agt=tuple(agents),
        )
        if fault := _wider(claims, old):
            raise Denied(f"a child grant can only narrow: {fault}")
        if fault := outside(self._key, claims):
            raise Denied(f"key {self._key.kid!r} may not sign for {fault}")
        return self._signed(claims)

    def _signed(self, claims: Claims) -> str:
        signed = f"{self._head}{encoded(_ENCODER.encode(claims))}"
        return f"{signed}.{encoded(self._signer.sign(signed.encode()))}"


class GrantReader:
    """Verifies grants: signature, key, scope and audience. Not whether they still stand: see the gate.

    What was verified once in this process is remembered by its exact text, so a second hop or a second attempt in the
    same process costs a look-up. Keys do not leave the ring while a process runs, so nothing remembered goes bad.
    """

    def __init__(self, ring: KeyRing, *, audience: str) -> None:
        self._ring = ring
        self._audience = audience
        self._known: dict[str, Grant] = {}
        self._heads: dict[str, str] = {}

    def read(self, token: str) -> Grant:
        """Return the verified grant.

        Raises:
            BadSignature: it is none, or nobody who may has signed it; the message says which.
        """
        known = self._known.get(token)
        if known is not None:
            return known
        grant = self._verified(token, parent_allowed=True)
        if len(self._known) >= _REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[token] = grant
        return grant

    def _verified(self, token: str, *, parent_allowed: bool) -> Grant:
        if len(token) > MAX_TOKEN:
            raise BadSignature(f"grant: over {MAX_TOKEN} characters")
        parts = token.split(".")
        if len(parts) != 3 or not token.isascii():
            raise BadSignature("grant: not a compact JWS")
        head, payload, signature = parts
        try:
            kid = self._kid(head)
            raw, sealed = decoded(payload), decoded(signature)
        except (ValueError, RecursionError) as error:
            raise BadSignature("grant: not a compact JWS") from error
        # The payload says which purpose is needed, but nothing of it is believed before its signature holds.
        claims = _parsed(raw)
        purpose = NARROW if claims.par else GRANT
        key = self._ring.verify(kid, token[: -len(signature) - 1].encode(), sealed, purpose=purpose)
        if claims.aud != self._audience:
            raise BadSignature(f"grant: is for {claims.aud!r}, this is {self._audience!r}")
        if fault := outside(key, claims):
            raise BadSignature(f"grant: key {kid!r} may not sign for {fault}")
        if claims.par is None:
            if claims.pln is not None or claims.stp:
                raise BadSignature("grant: names a plan or a step, and no parent")
            return Grant(claims, (kid,), token)
        if not parent_allowed:
            raise BadSignature("grant: a child of a child")
        parent = self._verified(claims.par, parent_allowed=False)
        if fault := _wider(claims, parent.claims):
            raise BadSignature(f"grant: is wider than its parent: {fault}")
        return Grant(claims, (kid, *parent.kids), token)

    def _kid(self, head: str) -> str:
        """Return the key id of a header, which is the same text in all grants of a key."""
        known = self._heads.get(head)
        if known is not None:
            return known
        header = _HEADER.decode(decoded(head))
        if (header.alg, header.typ) != ("EdDSA", TYPE):
            raise BadSignature("grant: alg must be EdDSA and typ " + TYPE)
        if self._ring.get(header.kid):
            self._heads[head] = header.kid
        return header.kid


def outside(key: PublicKey, claims: Claims) -> str:
    """Return what in ``claims`` is out of the scope of ``key``, empty where nothing is.

    A child has its revision from its parent, whose key is asked.
    """
    if claims.rev > 1 and claims.par is None and not (claims.act and covers(key.scope.purposes, REVISE)):
        return f"revision {claims.rev}: that takes an actor, and the purpose {REVISE!r}"
    subjects = (claims.sub, claims.act.sub) if claims.act else (claims.sub,)
    return _outside(key, claims.tenant, subjects, claims.roles)


def _outside(key: PublicKey, tenant: str, subjects: Sequence[str], roles: Sequence[str]) -> str:
    scope = key.scope
    if not covers(scope.tenants, tenant):
        return f"tenant {tenant!r}"
    for subject in subjects:
        if not covers(scope.subjects, subject):
            return f"subject {subject!r}"
    strange = [role for role in roles if not covers(scope.roles, role)]
    return f"role {strange[0]!r}" if strange else ""


def fingerprint(grant: Grant) -> str:
    """Return what an audit record may say of a grant: the SHA-256 of its text."""
    return sha256(grant.token.encode())


def _parsed(raw: bytes) -> Claims:
    try:
        return _CLAIMS.decode(raw)
    except (ValueError, RecursionError) as error:
        raise BadSignature("grant: its claims do not parse") from error


_SAME: Final[dict[str, Callable[[Claims], object]]] = {
    "sub": lambda claims: claims.sub,
    "tenant": lambda claims: claims.tenant,
    "aud": lambda claims: claims.aud,
    "jti": lambda claims: claims.jti,
    "dig": lambda claims: claims.dig,
    "rev": lambda claims: claims.rev,
    "act": lambda claims: claims.act,
}


def _wider(child: Claims, parent: Claims) -> str:
    """Return in which claim ``child`` says more than ``parent``, empty where it only narrows."""
    if parent.par:
        return "its parent is a child itself"
    if missing := [name for name in ("pln", "stp", "agt") if not getattr(child, name)]:
        return f"{missing[0]} is missing"
    for name, of in _SAME.items():
        if of(child) != of(parent):
            return f"{name} differs"
    if extra := set(child.roles) - set(parent.roles):
        return f"role {min(extra)!r} is new"
    if child.exp > parent.exp:
        return "exp is later"
    return "iat is earlier" if child.iat < parent.iat else ""

"""The one place where grants are minted and verified, and where roles are asked.

Every door calls :meth:`Gate.admit` and :meth:`Gate.mint`; every hop calls :meth:`Gate.verify` before it reads anything
else, then :meth:`Gate.standing`, and :meth:`Gate.allow` for what the request wants. :class:`OpenGate` lets everybody in
and vouches for nothing but the digest: for development and for tests whose matter is not trust.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from tasks.access.grants import NARROW, Claims, Grant, GrantReader, Mint
from tasks.access.policy import Act, Policy, Question, load_policy
from tasks.access.revoked import RevocationList, Revocations
from tasks.access.signing import GRANT, Keys
from tasks.contracts.base import sha256
from tasks.contracts.message import Message
from tasks.errors import BadSignature, Denied, ForgedMessage, NotReady

if TYPE_CHECKING:
    from tasks.contracts.request import Request
    from tasks.settings import GrantSettings, Settings


CLOCK_SKEW_SECONDS: Final = 300.0
"""How far ahead of this process's clock the one of a door may be. A grant from the future would outlive its
revocation."""


class Caller(msgspec.Struct, frozen=True):
    """Whom a door has authenticated: ``subject`` is who, ``roles`` are what policies ask for."""

    subject: str
    roles: tuple[str, ...] = ()


class Gate(Protocol):
    """Mints and verifies grants, and knows what roles may do."""

    def caller(self) -> Caller:
        """Return whom the local key stands for; raises :class:`NotReady` where there is none."""

    def mint(self, request: Request, caller: Caller) -> str | None:
        """Return the grant that travels with ``request``; raises :class:`Denied` outside the key's scope."""

    def admit(self, request: Request, caller: Caller) -> None:
        """Raise :class:`Denied` unless ``caller`` may submit ``request`` as it is."""

    def verify(self, message: Message) -> Grant:
        """Return the grant of ``message``; raise :class:`ForgedMessage` unless it vouches for its id and digest."""

    def narrow(self, grant: Grant, *, plan: str, step: str, agents: Sequence[str]) -> str | None:
        """Return the grant for one step of the plan whose SHA-256 is ``plan``, which ``agents`` may do.

        Raises:
            NotReady: this process has no key for child grants.
            Denied: its key may not sign for these.
        """

    async def standing(self, grant: Grant) -> None:
        """Raise :class:`Denied` if ``grant`` has expired or was revoked."""

    async def unrevoked(self, grant: Grant) -> None:
        """Raise :class:`Denied` if ``grant`` was revoked; that it has expired is no matter."""

    def allow(self, grant: Grant, act: Act, name: str) -> None:
        """Raise :class:`Denied` unless the roles of ``grant`` may do ``act`` to ``name``."""

    def permit(self, caller: Caller, act: Act, tenant: str = "") -> None:
        """Raise :class:`Denied` unless ``caller`` may do ``act`` to ``tenant``, or to the whole deployment."""

    def again(self, message: Message, caller: Caller) -> str | None:
        """Return the grant for the revision after that of ``message``: ``caller`` acts, the subject stays.

        Raises:
            ForgedMessage: the grant of ``message`` does not vouch for it.
            Denied: the caller's key may not sign for that subject.
        """

    def verify_body(self, message: Message, body: bytes) -> None:
        """Raise :class:`ForgedMessage` if ``body`` is not the one that was granted."""

    def verify_plan(self, grant: Grant, digest: str) -> None:
        """Raise :class:`ForgedMessage` if the plan whose SHA-256 is ``digest`` is not the one that was granted."""


class OpenGate:
    """Signs nothing and denies nothing. Only the digest is checked."""

    def caller(self) -> Caller:
        """See :class:`Gate`."""
        return Caller("local")

    def mint(self, request: Request, caller: Caller) -> str | None:
        """See :class:`Gate`."""
        return None

    def admit(self, request: Request, caller: Caller) -> None:
        """See :class:`Gate`."""

    def verify(self, message: Message) -> Grant:
        """See :class:`Gate`."""
        return Grant(
            Claims(
                sub=f"tenant:{message.tenant}",
                tenant=message.tenant,
                roles=(),
                aud="",
                iat=0,
                exp=0,
                jti=message.id,
                dig=message.digest,
                rev=message.revision,
            )
        )

    def narrow(self, grant: Grant, *, plan: str, step: str, agents: Sequence[str]) -> str | None:
        """See :class:`Gate`."""
        return None

    async def standing(self, grant: Grant) -> None:
        """See :class:`Gate`."""

    async def unrevoked(self, grant: Grant) -> None:
        """See :class:`Gate`."""

    def allow(self, grant: Grant, act: Act, name: str) -> None:
        """See :class:`Gate`."""

    def permit(self, caller: Caller, act: Act, tenant: str = "") -> None:
        """See :class:`Gate`."""

    def again(self, message: Message, caller: Caller) -> str | None:
        """See :class:`Gate`."""
        return None

    def verify_body(self, message: Message, body: bytes) -> None:
        """See :class:`Gate`."""
        _check_digest(message, body)

    def verify_plan(self, grant: Grant, digest: str) -> None:
        """See :class:`Gate`."""


class SignedGate:
    """Signs with this process's keys, verifies by the ring, asks the policies and the revocation list."""

    def __init__(
        self,
        settings: GrantSettings,
        *,
        keys: Keys,
        policy: Policy,
        revoked: RevocationList,
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._policy = policy
        self._revoked = revoked
        self._now = now
        self._reader = GrantReader(keys.ring, audience=settings.audience)
        self._mint: Mint | None = None
        self._narrower: Mint | None = None

    def caller(self) -> Caller:
        """See :class:`Gate`. Subject and roles are those that the key's scope names."""
        key = self._minting().key
        subjects = [subject for subject in key.scope.subjects if not subject.endswith("*")]
        if not subjects:
            raise NotReady(f"key {key.kid!r} stands for no one subject: name one in the subjects of its scope")
        return Caller(subjects[0], tuple(role for role in key.scope.roles if not role.endswith("*")))

    def mint(self, request: Request, caller: Caller) -> str | None:
        """See :class:`Gate`."""
        now = self._now()
        return self._minting().mint(
            subject=caller.subject,
            tenant=request.tenant,
            roles=caller.roles,
            request_id=request.id,
            digest=request.digest(),
            now=now,
            expires=request.deadline or now + timedelta(days=self._settings.max_age_days),
        )

    def admit(self, request: Request, caller: Caller) -> None:
        """See :class:`Gate`."""
        self._minting().check(caller.subject, request.tenant, caller.roles)
        for act, name in asked_for(request.intent, request.model, request.attachments):
            self._ask(Question(caller.roles, request.tenant, act, name), caller.subject)

    def verify(self, message: Message) -> Grant:
        """See :class:`Gate`."""
        if message.grant is None:
            raise ForgedMessage(f"{message.id}: no grant")
        try:
            grant = self._reader.read(message.grant)
        except BadSignature as error:
            raise ForgedMessage(f"{message.id}: {error}") from error
        claims = grant.claims
        if claims.jti != message.id:
            raise ForgedMessage(f"{message.id}: its grant is for request {claims.jti}")
        if claims.tenant != message.tenant:
            raise ForgedMessage(f"{message.id}: its grant is for tenant {claims.tenant}, not {message.tenant}")
        if claims.dig != message.digest:
            raise ForgedMessage(f"{message.id}: its grant is for another body")
        if claims.rev != message.revision:
            raise ForgedMessage(f"{message.id}: its grant is for revision {claims.rev}, not {message.revision}")
        if claims.stp != message.step:
            raise ForgedMessage(f"{message.id}: its grant is for {_named(claims.stp)}, not for {_named(message.step)}")
        if claims.stp and message.agent_type not in claims.agt:
            raise ForgedMessage(f"{message.id}: its grant is for agent type {', '.join(claims.agt)}")
        return grant

    def narrow(self, grant: Grant, *, plan: str, step: str, agents: Sequence[str]) -> str | None:
        """See :class:`Gate`."""
        if self._narrower is None:
            signer = self._keys.signer(NARROW)
            self._narrower = Mint(signer, self._keys.public(signer), audience=self._settings.audience)
        return self._narrower.narrow(grant, plan=plan, step=step, agents=agents, now=self._now())

    async def standing(self, grant: Grant) -> None:
        """See :class:`Gate`."""
        now = self._now()
        seconds = now.timestamp()
        if grant.claims.exp <= seconds:
            expired = datetime.fromtimestamp(grant.claims.exp, now.tzinfo)
            raise Denied(f"grant: expired at {expired.isoformat()}")
        if grant.claims.iat > seconds + CLOCK_SKEW_SECONDS:
            ahead = grant.claims.iat - seconds
            raise Denied(f"grant: issued {ahead:.0f} s ahead of this worker's clock: set the clocks by one time server")
        await self._revoked.check(grant)

    async def unrevoked(self, grant: Grant) -> None:
        """See :class:`Gate`."""
        await self._revoked.check(grant)

    def allow(self, grant: Grant, act: Act, name: str) -> None:
        """See :class:`Gate`."""
        self._ask(Question(grant.claims.roles, grant.claims.tenant, act, name), grant.subject)

    def permit(self, caller: Caller, act: Act, tenant: str = "") -> None:
        """See :class:`Gate`."""
        if tenant:
            self._minting().check(caller.subject, tenant, caller.roles)
        self._ask(Question(caller.roles, tenant, act), caller.subject)

    def again(self, message: Message, caller: Caller) -> str | None:
        """See :class:`Gate`."""
        now = self._now()
        return self._minting().again(
            self.verify(message),
            actor=caller.subject,
            revision=message.revision + 1,
            now=now,
            expires=message.deadline or now + timedelta(days=self._settings.max_age_days),
        )

    def verify_body(self, message: Message, body: bytes) -> None:
        """See :class:`Gate`."""
        _check_digest(message, body)

    def verify_plan(self, grant: Grant, digest: str) -> None:
        """See :class:`Gate`."""
        if grant.claims.pln != digest:
            raise ForgedMessage(f"{grant.claims.jti}: its plan is not the one that its steps were granted for")

    def _ask(self, question: Question, subject: str) -> None:
        answer = self._policy.decide(question)
        if not answer.allowed:
            roles = ", ".join(question.roles) or "no role"
            raise Denied(
                f"{subject} ({roles}) of tenant {question.tenant} may not {question.spelt()}: {answer.because()}; "
                "`sluice policy check` explains"
            )

    def _minting(self) -> Mint:
        if self._mint is None:
            signer = self._keys.signer(GRANT, self._settings.identity)
            self._mint = Mint(signer, self._keys.public(signer), audience=self._settings.audience)
        return self._mint


def open_gate(
    settings: Settings,
    *,
    keys: Keys,
    revocations: Revocations,
    now: Callable[[], datetime],
    identity: str | None = None,
) -> Gate:
    """Return the gate that ``settings`` ask for; ``identity`` names another key than ``grants.identity``.

    Raises:
        SettingsError: a policy file is wrong.
    """
    grants = settings.grants
    if grants.mode == "open":
        return OpenGate()
    return SignedGate(
        grants.changed(identity=identity) if identity else grants,
        keys=keys,
        policy=load_policy(settings.policy.dir),
        revoked=RevocationList(revocations, max_age=grants.revocation_seconds, clock=lambda: now().timestamp()),
        now=now,
    )


def asked_for(intent: str | None, model: str | None, attachments: Sequence[str] = ()) -> list[tuple[Act, str]]:
    """Return what a request asks leave for before its intent is known."""
    wanted = [(Act.REQUEST_SUBMIT, "")]
    if intent is not None:
        wanted.append((Act.INTENT_OVERRIDE, intent))
    if model is not None:
        wanted.append((Act.MODEL_OVERRIDE, model))
    if attachments:
        wanted.append((Act.ATTACHMENT_READ, ""))
    return wanted


def _named(step: str | None) -> str:
    return f"step {step}" if step else "the request"


def _check_digest(message: Message, body: bytes) -> None:
    if sha256(body) != message.digest:
        raise ForgedMessage(f"{message.id}: the body does not match its digest")

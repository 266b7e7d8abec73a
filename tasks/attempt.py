"""What both hops do with a message: read it, verify it, take the lease, try, and never let it fall."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from hashlib import sha1
from typing import Any, ClassVar, Final

import orjson
from msgspec import Struct

from tasks import keys
from tasks.access.gate import Gate, asked_for
from tasks.access.grants import Grant
from tasks.access.policy import Act
from tasks.audit.stream import AuditStream
from tasks.contracts.asked import Asked
from tasks.contracts.audit import Action, Decision, Event
from tasks.contracts.base import canonical, parse_versioned
from tasks.contracts.message import Message, decode_body
from tasks.contracts.result import ErrorInfo, Status
from tasks.contracts.row import Row, Stage
from tasks.contracts.words import new_id
from tasks.errors import (
    Denied,
    ForgedMessage,
    InvalidInput,
    LeaseLost,
    MalformedMessage,
    ModelRefused,
    NewerSchema,
    NotReady,
    SessionConflict,
    SluiceError,
    StoreError,
)
from tasks.finish import EXHAUSTED, Finisher, Outcome, unanswered
from tasks.heartbeat import Heartbeat
from tasks.log import bound, get_logger
from tasks.refuse import Refusals
from tasks.settings import Settings
from tasks.stores.bodies import BodyStore, to_request
from tasks.stores.broker import Broker
from tasks.stores.register import Handover, Opened, Register, Verdict
from tasks.stores.relay import Relay, publish_waiting
from tasks.stores.results import ResultStore
from tasks.stores.sessions import SessionStore

log = get_logger()

_MAX_RETRY_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 1.0
_REPEATED: Final = ("tenant", "session_id", "priority", "deadline")
"""What a message says of its body, which is what the grant vouches for."""


class Disposition(Enum):
    """What the pool does with the message."""

    ACK = "ack"
    REQUEUE = "requeue"


class Deps(Struct, frozen=True):
    """Everything that a hop works with."""

    settings: Settings
    worker: str
    pool: str
    gate: Gate
    audit: AuditStream
    register: Register
    broker: Broker
    relay: Relay
    bodies: BodyStore
    results: ResultStore
    sessions: SessionStore
    finisher: Finisher
    heartbeat: Heartbeat
    now: Callable[[], datetime]
    redact: Callable[[str], str]


class Attempt(Struct, frozen=True):
    """One try at one request. ``id`` is also the holder of the lease; ``grant`` vouches for the message."""

    id: str
    number: int
    message: Message
    grant: Grant
    started_at: datetime

    @property
    def ref(self) -> str:
        """Return the request's name in the register."""
        return keys.ref(self.message.tenant, self.message.id)


class Hop(ABC):
    """A hop: subclasses say what an attempt does, and what to do when it fails for good."""

    stage: ClassVar[Stage]

    def __init__(self, deps: Deps) -> None:
        self.deps = deps
        self._refusals = Refusals(deps.worker, deps.pool, deps.audit, deps.broker, deps.now)

    @abstractmethod
    async def attempt(self, attempt: Attempt, request: Asked) -> None:
        """Do the hop's work and hand the request on or end it."""

    def check(self, message: Message) -> None:  # noqa: B027  the first hop has nothing to check
        """Raise :class:`MalformedMessage` if no hop before this one can have sent ``message``."""

    async def give_up(self, attempt: Attempt, error: ErrorInfo) -> None:
        """End the request after its last attempt."""
        await self.end(attempt, Status.FAILED, error)

    async def handle(self, raw: dict[str, Any], tag: str) -> Disposition:
        """Do what the message asks; return what becomes of it. ``tag`` is its delivery tag."""
        try:
            message = parse_versioned(Message, raw)
            grant = self.deps.gate.verify(message)
        except NewerSchema as error:
            # For a newer worker. Unread and uncounted it goes to the end of its queue, after a pause, so that old
            # workers do not spin on what they cannot read.
            log.info("handed back", reason=str(error))
            await self._still_queued(raw)
            await asyncio.sleep(self.deps.settings.queue.hand_back_seconds)
            return Disposition.REQUEUE
        except MalformedMessage as error:
            await self._refusals.quarantine(raw, error)
            return Disposition.ACK
        with bound(request_id=message.id, tenant=message.tenant):
            return await self._lead(message, grant, raw, tag)

    async def _lead(self, message: Message, grant: Grant, raw: dict[str, Any], tag: str) -> Disposition:
        asked = None
        try:
            text = _spelt(message, raw)
            self.check(message)
            if message.body.encoding != "object":
                asked = self._granted(message, decode_body(message.body))
        except MalformedMessage as error:
            # Not what was accepted: whoever wrote it must not be able to spend the attempts of the one who was.
            await self._refusals.quarantine(raw, error)
            return Disposition.ACK
        now = self.deps.now()
        holder = new_id()
        try:
            verdict, number = await self._begin(message, text, holder, now)
        except asyncio.CancelledError:
            # The register may have begun it all the same.
            if await asyncio.shield(self._unbegin(message, holder)):
                return Disposition.ACK
            raise
        if verdict is Verdict.MISMATCH:
            await self._refusals.quarantine(
                raw, ForgedMessage(f"{message.id}: is not the message that the register has")
            )
        if verdict is Verdict.FINISHED:
            await self._refusals.replayed(message, grant)
        if verdict not in {Verdict.STARTED, Verdict.EXHAUSTED}:
            log.debug("left alone", verdict=verdict.value)
            return Disposition.ACK
        attempt = Attempt(holder, number, message, grant, now)
        try:
            async with self.deps.heartbeat.holding(attempt.ref, holder, tag):
                await self._try(attempt, verdict, asked)
        except LeaseLost as error:
            log.warning("attempt discarded", reason=str(error))
        except asyncio.CancelledError:
            # The worker was told to stop. This is where the cancellation ends: the request is handed back in the
            # register, so its message is done.
            await asyncio.shield(self._hand_back(attempt))
        return Disposition.ACK

    async def _unbegin(self, message: Message, holder: str) -> bool:
        """Give back what was begun while this worker was told to stop; tell whether it was."""
        ref, now = keys.ref(message.tenant, message.id), self.deps.now().timestamp()
        try:
            await self.deps.register.postpone(ref, holder, due=now, counted=False)
            await publish_waiting(ref, self.deps.register, self.deps.relay, now=now)
        except LeaseLost:
            return False
        except StoreError as error:
            log.warning("not handed back, its lease ends by itself", error=str(error))
            return False
        return True

    async def _begin(self, message: Message, text: bytes, holder: str, now: datetime) -> tuple[Verdict, int]:
        """Take the lease for ``message``, whose JSON is ``text``: what a newer version knows of it included."""
        ref = keys.ref(message.tenant, message.id)
        settings = self.deps.settings
        seal = sha1(text, usedforsecurity=False).hexdigest()
        for _ in range(2):
            begun = await self.deps.register.begin(
                ref,
                stage=self.stage,
                revision=message.revision,
                digest=message.digest,
                holder=holder,
                now=now.timestamp(),
                lease=settings.leases.lease_seconds,
                attempts=settings.queue.attempts,
                queue=keys.queue(self.deps.pool, message.priority),
                seal=seal,
            )
            if begun.verdict is not Verdict.UNKNOWN:
                return begun.verdict, begun.attempts
            if await self.deps.results.get(message.tenant, message.id, message.revision):
                return Verdict.FINISHED, 0
            log.warning("row restored from its message: the register had lost it")
            if await self._restore_row(message, text) is Opened.FINISHED:
                return Verdict.FINISHED, 0
        raise StoreError(f"{ref}: the register does not keep its row")

    async def _restore_row(self, message: Message, text: bytes) -> Opened:
        now = self.deps.now().timestamp()
        row = Row(
            tenant=message.tenant,
            id=message.id,
            digest=message.digest,
            stage=self.stage,
            revision=message.revision,
            queue=keys.queue(self.deps.pool, message.priority),
            message=text.decode(),
            accepted_at=message.accepted_at.timestamp(),
            recorded=True,
            deadline=message.deadline.timestamp() if message.deadline else None,
            session=message.session_id or "",
        )
        [opened] = await self.deps.register.open([row], due=now + self.deps.settings.leases.unpublished_seconds)
        return opened

    async def _try(self, attempt: Attempt, verdict: Verdict, asked: Asked | None) -> None:
        message = attempt.message
        if attempt.number > 1:
            standing = await self.deps.results.get(message.tenant, message.id, message.revision)
            if standing:
                await self.deps.finisher.close(message, standing)
                return
        if self._is_overdue(message):
            await self._expire(attempt)
            return
        if verdict is Verdict.EXHAUSTED:
            tried = self.deps.settings.queue.attempts
            await self.give_up(attempt, ErrorInfo(code=EXHAUSTED, message=f"{tried} attempts did not end"))
            return
        try:
            await self.deps.gate.standing(attempt.grant)
            request = asked or await self._request(message)
            for act, name in asked_for(request.intent, request.model):
                self.allow(attempt, act, name)
            await self.attempt(attempt, request)
        except LeaseLost:
            raise
        except Denied as error:
            await self._reject(attempt, error)
        except SessionConflict as error:
            log.info("the session moved on, trying again", reason=str(error))
            now = self.deps.now().timestamp()
            await self.deps.register.postpone(attempt.ref, attempt.id, due=now, counted=False)
        except Exception as error:  # noqa: BLE001  whatever an agent, tool or store raises must not lose the request
            await self._failed(attempt, error)

    async def _request(self, message: Message) -> Asked:
        body = await self.deps.bodies.unpack(message)
        if body is None:
            raise StoreError(f"{message.id}: its body is not in object storage")
        return self._granted(message, body) or to_request(message, body)

    def _granted(self, message: Message, body: bytes) -> Asked | None:
        """Return what was asked; None where it does not parse, which is for the attempt to say.

        Raises:
            ForgedMessage: the body is not the granted one, or the message says otherwise than it.
        """
        self.deps.gate.verify_body(message, body)
        try:
            asked = to_request(message, body)
        except MalformedMessage:
            return None
        for field in _REPEATED:
            if getattr(asked, field) != getattr(message, field):
                raise ForgedMessage(f"{message.id}: {field}: is not that of the body that was granted")
        return asked

    def allow(self, attempt: Attempt, act: Act, name: str) -> None:
        """Raise :class:`Denied` unless the grant's roles may do ``act`` to ``name``."""
        self.deps.gate.allow(attempt.grant, act, name)

    async def _reject(self, attempt: Attempt, error: Denied) -> None:
        """End a request whose grant verifies and does not suffice."""
        log.warning("rejected", reason=str(error))
        await self.deps.audit.commit([self.violation(attempt, error)])
        await self.end(attempt, Status.REJECTED, describe(error))

    def violation(self, attempt: Attempt, error: Denied, *, resource: str = "") -> Event:
        """Return the record of what was asked for and not allowed."""
        denied = self.event(
            attempt, Action.PERMISSION_VIOLATION, resource=resource, reason=str(error), subject=attempt.grant.subject
        )
        return denied.changed(decision=Decision.DENY)

    async def _still_queued(self, raw: dict[str, Any]) -> None:
        """Keep the sweeper from taking a message that nobody here may begin for a lost one."""
        tenant, request_id = raw.get("tenant"), raw.get("id")
        if isinstance(tenant, str) and isinstance(request_id, str):
            await self.deps.register.seen(keys.ref(tenant, request_id), now=self.deps.now().timestamp())

    async def _failed(self, attempt: Attempt, error: Exception) -> None:
        info = describe(error)
        log.warning("attempt failed", attempt=attempt.number, code=info.code, error=info.message)
        await self.deps.audit.commit(
            [self.event(attempt, Action.ATTEMPT_FAILED, reason=f"{info.code}: {info.message}")]
        )
        queue = self.deps.settings.queue
        if self._is_overdue(attempt.message):
            await self._expire(attempt)
        elif not retryable(error):
            await self.give_up(attempt, info)
        elif attempt.number >= queue.attempts:
            reason = f"{queue.attempts} attempts failed, the last with {info.code}: {info.message}"
            await self.give_up(attempt, ErrorInfo(code=EXHAUSTED, message=reason))
        else:
            pause = min(queue.retry_seconds * 2 ** (attempt.number - 1), _MAX_RETRY_SECONDS)
            due = self.deps.now().timestamp() + pause
            await self.deps.register.postpone(attempt.ref, attempt.id, due=due, counted=True)

    def _is_overdue(self, message: Message) -> bool:
        return message.deadline is not None and message.deadline <= self.deps.now()

    async def _expire(self, attempt: Attempt) -> None:
        deadline = attempt.message.deadline
        error = ErrorInfo(code="expired", message=f"the deadline {deadline.isoformat() if deadline else ''} has passed")
        await self.end(attempt, Status.EXPIRED, error)

    async def _hand_back(self, attempt: Attempt) -> None:
        """Give a request back that this worker was told to stop; it is published at once and does not count."""
        if await self._closed_already(attempt.message):
            return
        try:
            now = self.deps.now().timestamp()
            await self.deps.register.postpone(attempt.ref, attempt.id, due=now, counted=False)
            await publish_waiting(attempt.ref, self.deps.register, self.deps.relay, now=now)
        except LeaseLost:
            return
        log.info("handed back", attempt=attempt.number)

    async def _closed_already(self, message: Message) -> bool:
        """Close a request whose result is there. There is little time: a store that is away is not waited for."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                standing = await self.deps.results.get(message.tenant, message.id, message.revision)
                if standing:
                    await self.deps.finisher.close(message, standing)
                return standing is not None
        except (TimeoutError, SluiceError) as error:
            log.warning("could not look for a result, handing back all the same", error=str(error))
            return False

    async def hand_over(self, attempt: Attempt, message: Message, pool: str) -> None:
        """Send the request to ``pool``."""
        now = self.deps.now().timestamp()
        handover = Handover(Stage.WORK, keys.queue(pool, message.priority), message.to_json())
        due = now + self.deps.settings.leases.unpublished_seconds
        self.deps.heartbeat.release(attempt.id)
        await self.deps.relay.hand_over(attempt.ref, attempt.id, handover, now=now, due=due)
        self.deps.finisher.passed("hand_over")

    async def end(self, attempt: Attempt, status: Status, error: ErrorInfo) -> None:
        """End the request without an answer."""
        result = unanswered(
            attempt.message,
            status,
            error.changed(message=self.deps.redact(error.message)),
            attempt=attempt.id,
            now=self.deps.now(),
            started_at=attempt.started_at,
        )
        extra = (
            [self.event(attempt, Action.REQUEST_DEAD_LETTERED, reason=error.message)] if error.code == EXHAUSTED else []
        )
        await self.deps.finisher.finish(Outcome(attempt.message, result, actor=self.deps.worker, events=extra))

    def event(self, attempt: Attempt, action: Action, *, resource: str = "", reason: str = "", **details: Any) -> Event:
        """Return an audit event about this attempt."""
        return Event(
            action=action,
            actor=self.deps.worker,
            tenant=attempt.message.tenant,
            request_id=attempt.message.id,
            resource=resource or self.deps.pool,
            reason=reason,
            details={"attempt": attempt.id, "number": attempt.number, **details},
        )


def _spelt(message: Message, raw: dict[str, Any]) -> bytes:
    """Return the JSON of ``raw`` as it was published, what a newer version knows of it included."""
    try:
        return canonical(raw)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise MalformedMessage(f"{message.id}: nests deeper than any message that a door writes") from error


def describe(error: Exception) -> ErrorInfo:
    """Return what a result or an audit record says of ``error``."""
    code = error.code if isinstance(error, SluiceError) else "internal"
    return ErrorInfo(code=code, message=str(error) or type(error).__name__)


def retryable(error: Exception) -> bool:
    """Tell whether trying again may help."""
    return not isinstance(error, ModelRefused | InvalidInput | NotReady | MalformedMessage)

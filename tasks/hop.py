"""What both hops do with a message: read it, verify it, take the lease, try, and never let it fall."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

import orjson
from msgspec.structs import replace

from tasks import keys
from tasks.access.gate import asked_for
from tasks.access.grants import Grant
from tasks.access.policy import Act
from tasks.attempt import Attempt, Deps, Disposition, describe, retryable
from tasks.contracts.asked import Asked
from tasks.contracts.audit import Action, Decision, Event
from tasks.contracts.base import canonical, parse_versioned
from tasks.contracts.message import Message, decode_body
from tasks.contracts.result import ErrorInfo, Result, Status
from tasks.contracts.row import Stage
from tasks.contracts.words import new_id
from tasks.errors import (
    Denied,
    ForgedMessage,
    LeaseLost,
    MalformedMessage,
    ModelUnavailable,
    NewerSchema,
    RequestEnded,
    SessionConflict,
    StoreError,
)
from tasks.finish import EXHAUSTED, Outcome, unanswered
from tasks.join import may_have_plan, with_tree
from tasks.leases import Leases
from tasks.log import bound, get_logger
from tasks.refuse import Refusals
from tasks.stores.bodies import demand_same, to_request
from tasks.stores.register import Handover, Verdict

log = get_logger()

_MAX_RETRY_SECONDS: Final = 60.0


class Hop(ABC):
    """A hop: subclasses say what an attempt does, and what to do when it fails for good."""

    stage: ClassVar[Stage]

    def __init__(self, deps: Deps) -> None:
        self.deps = deps
        self._leases = Leases(deps, self.stage)
        self._refusals = Refusals(deps.worker, deps.pool, deps.audit, deps.broker, deps.now)

    @abstractmethod
    async def attempt(self, attempt: Attempt, request: Asked) -> None:
        """Do the hop's work and hand the request on or end it."""

    @property
    def attempts(self) -> int:
        """Return how many attempts there are before it is given up."""
        return self.deps.settings.queue.attempts

    def pause(self, attempt: Attempt, error: Exception) -> float:
        """Return the seconds until the next attempt after one that failed."""
        pause = min(self.deps.settings.queue.retry_seconds * 2.0 ** (attempt.number - 1), _MAX_RETRY_SECONDS)
        # Before that an attempt would be spent for nothing.
        return max(pause, error.retry_seconds) if isinstance(error, ModelUnavailable) else pause

    def check(self, message: Message) -> None:
        """Raise :class:`MalformedMessage` if no hop before this one can have sent ``message``."""
        if bool(message.delivery) != (self.stage is Stage.DELIVER):
            raise MalformedMessage(f"{message.id}: callbacks are for their own pool, and nothing else is")
        if (message.body.encoding == "plan") != (message.step is not None):
            raise MalformedMessage(f"{message.id}: a step has its body in the plan, and nothing else has")

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
            # workers do not spin on what they cannot read. That it is in the register is all that can be asked of a
            # message that nobody here can read; without it, it would go round until somebody looked.
            if not await self._still_queued(raw):
                await self._refusals.quarantine(raw, MalformedMessage(f"{error}; and the register has no such message"))
                return Disposition.ACK
            log.info("handed back", reason=str(error))
            await asyncio.sleep(self.deps.settings.queue.hand_back_seconds)
            return Disposition.REQUEUE
        except MalformedMessage as error:
            await self._refusals.quarantine(raw, error)
            return Disposition.ACK
        with bound(request_id=message.id, tenant=message.tenant, **_which(message)):
            return await self._lead(message, grant, raw, tag)

    async def _lead(self, message: Message, grant: Grant, raw: dict[str, Any], tag: str) -> Disposition:
        asked = None
        try:
            text = _spelt(message, raw)
            self.check(message)
            if message.body.encoding in {"json", "zstd"}:
                asked = self._granted(message, decode_body(message.body))
                message = _marked(message, asked)
        except MalformedMessage as error:
            # Not what was accepted: whoever wrote it must not be able to spend the attempts of the one who was.
            await self._refusals.quarantine(raw, error)
            return Disposition.ACK
        now = self.deps.now()
        holder = new_id()
        try:
            verdict, number = await self._leases.begin(message, text, holder, now, attempts=self.attempts)
        except asyncio.CancelledError:
            # The register may have begun it all the same.
            if await asyncio.shield(self._leases.unbegin(message, holder)):
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
        await self._hold(Attempt(holder, number, message, grant, now), verdict, asked, tag)
        return Disposition.ACK

    async def _hold(self, attempt: Attempt, verdict: Verdict, asked: Asked | None, tag: str) -> None:
        """Try, for as long as the lease is this attempt's; then its message is done, whatever came of it."""
        try:
            async with self.deps.heartbeat.holding(attempt.lease, tag):
                await self._try(attempt, verdict, asked)
        except (LeaseLost, RequestEnded) as error:
            log.info("attempt discarded", reason=str(error))
            await self.deps.audit.commit([self.event(attempt, Action.ATTEMPT_DISCARDED, reason=error.code)])
        except asyncio.CancelledError:
            # The worker was told to stop. This is where the cancellation ends: the request is handed back in the
            # register, so its message is done.
            await asyncio.shield(self._leases.hand_back(attempt))

    async def _try(self, attempt: Attempt, verdict: Verdict, asked: Asked | None) -> None:
        message = attempt.message
        if attempt.number > 1 and await self.close_standing(attempt):
            return
        if self.is_overdue(message):
            await self._expire(attempt)
            return
        if verdict is Verdict.EXHAUSTED:
            tried = self.attempts
            error = ErrorInfo(code=EXHAUSTED, message=f"{tried} attempts did not end", attempts=tried)
            await self.give_up(attempt, error)
            return
        try:
            request = await self.admitted(attempt, asked)
            await self.attempt(replace(attempt, message=_marked(message, request)), request)
        except (LeaseLost, RequestEnded):
            raise
        except Denied as error:
            await self._reject(attempt, error)
        except SessionConflict as error:
            log.info("the session moved on, trying again", reason=str(error))
            now = self.deps.now().timestamp()
            await self.deps.register.postpone(attempt.ref, attempt.id, due=now, counted=False)
        except Exception as error:  # noqa: BLE001  whatever an agent, tool or store raises must not lose the request
            await self._failed(attempt, error)

    async def close_standing(self, attempt: Attempt) -> bool:
        """Close what an attempt before this one brought to its end; tell whether there was one."""
        message = attempt.message
        standing = await self.deps.results.get(message.tenant, message.id, message.revision, message.step)
        if standing:
            await self.close(attempt, standing)
        return standing is not None

    async def admitted(self, attempt: Attempt, asked: Asked | None) -> Asked:
        """Return what is asked, ``asked`` where the message holds it, if it may be.

        Raises:
            Denied: the grant does not stand, or its roles do not allow this.
        """
        await self.deps.gate.standing(attempt.grant)
        request = asked or await self.read(attempt)
        for act, name in asked_for(request.intent, request.model, request.attachments):
            self.allow(attempt, act, name)
        return request

    async def read(self, attempt: Attempt) -> Asked:
        """Return what is asked where the message does not hold it.

        Raises:
            StoreError: it is not in object storage.
            ForgedMessage: it is not what was granted.
        """
        message = attempt.message
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
        demand_same(message, asked)
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

    async def _still_queued(self, raw: dict[str, Any]) -> bool:
        """Keep the sweeper from taking a message that nobody here may begin for a lost one.

        Tells whether it is the very message that the register has: anything else nobody waits for.
        """
        tenant, request_id, revision = str(raw.get("tenant", "")), str(raw.get("id", "")), raw.get("revision", 1)
        ref = keys.ref(tenant, request_id, revision, raw.get("step"))
        if raw.get("delivery"):
            ref = keys.ref(tenant, keys.delivery_id(request_id, revision))
        row = await self.deps.register.get(ref)
        try:
            is_ours = row is not None and canonical(raw).decode() == row.message
        except (orjson.JSONEncodeError, RecursionError):
            return False
        if is_ours:
            await self.deps.register.seen(ref, now=self.deps.now().timestamp())
        return is_ours

    async def _failed(self, attempt: Attempt, error: Exception) -> None:
        info = describe(error)
        log.warning("attempt failed", attempt=attempt.number, code=info.code, error=info.message)
        await self.deps.audit.commit(
            [self.event(attempt, Action.ATTEMPT_FAILED, reason=f"{info.code}: {info.message}")]
        )
        if self.is_overdue(attempt.message):
            await self._expire(attempt)
        elif not retryable(error):
            await self.give_up(attempt, info)
        elif attempt.number >= self.attempts:
            reason = f"{self.attempts} attempts failed, the last with {info.code}: {info.message}"
            await self.give_up(attempt, ErrorInfo(code=EXHAUSTED, message=reason, attempts=attempt.number))
        else:
            due = self.deps.now().timestamp() + self.pause(attempt, error)
            await self.deps.register.postpone(attempt.ref, attempt.id, due=due, counted=True)

    def is_overdue(self, message: Message) -> bool:
        """Tell whether nobody wants the answer any more."""
        return message.deadline is not None and message.deadline <= self.deps.now()

    async def _expire(self, attempt: Attempt) -> None:
        deadline = attempt.message.deadline
        error = ErrorInfo(code="expired", message=f"the deadline {deadline.isoformat() if deadline else ''} has passed")
        await self.end(attempt, Status.EXPIRED, error)

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
        if may_have_plan(self.deps.settings, attempt.message):
            result = await with_tree(result, self.deps.plans, self.deps.results, self.deps.redact)
        is_dead = error.code == EXHAUSTED and attempt.message.step is None
        extra = [self.event(attempt, Action.REQUEST_DEAD_LETTERED, reason=error.message)] if is_dead else []
        await self.finish(attempt, Outcome(attempt.message, result, actor=self.deps.worker, events=extra))

    async def finish(self, attempt: Attempt, outcome: Outcome) -> None:
        """Run the tail. From here on nothing but another attempt stops this one."""
        self.deps.heartbeat.ending(attempt.id)
        await self.deps.finisher.finish(outcome)

    async def close(self, attempt: Attempt, standing: Result) -> None:
        """Run the end of the tail for a request whose result is there."""
        self.deps.heartbeat.ending(attempt.id)
        await self.deps.finisher.close(attempt.message, standing)

    def event(self, attempt: Attempt, action: Action, *, resource: str = "", reason: str = "", **details: Any) -> Event:
        """Return an audit event about this attempt."""
        return Event(
            action=action,
            actor=self.deps.worker,
            tenant=attempt.message.tenant,
            request_id=attempt.message.id,
            resource=resource or self.deps.pool,
            reason=reason,
            details={"attempt": attempt.id, "number": attempt.number, **_which(attempt.message), **details},
        )


def _marked(message: Message, asked: Asked | None) -> Message:
    """Return ``message`` with the mark of its callback, which a hop of an older version drops: it does not know it."""
    return message.changed(callback=True) if asked and asked.callback and not message.callback else message


def _which(message: Message) -> dict[str, str | bool]:
    if message.delivery:
        return {"delivery": True}
    return {"step": message.step} if message.step else {}


def _spelt(message: Message, raw: dict[str, Any]) -> bytes:
    """Return the JSON of ``raw`` as it was published, what a newer version knows of it included."""
    try:
        return canonical(raw)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise MalformedMessage(f"{message.id}: nests deeper than any message that a door writes") from error

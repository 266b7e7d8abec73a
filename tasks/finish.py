"""The ordered tail of every request. Each step is idempotent, so an attempt may die between any two of them.

1. the audit records are durable, with the result's SHA-256, and then the escalation where a person is to answer; 2. the
session's new version is created; 3. the result is created; 4. the dead letter is published, of a step those who waited
for it, and the callback is opened that the request asks for; 5. the register row is cleared; 6. the message is
acknowledged, by whoever called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from tasks import keys
from tasks.access.quotas import spent
from tasks.audit.stream import AuditStream
from tasks.contracts.audit import Action, Event
from tasks.contracts.base import sha256
from tasks.contracts.escalation import Escalation, escalation_of
from tasks.contracts.message import Message
from tasks.contracts.result import ErrorInfo, Result, Status, Timings
from tasks.contracts.session import SessionVersion
from tasks.errors import AlreadyExists, SessionConflict
from tasks.log import get_logger
from tasks.settings import QuotaSettings, Settings
from tasks.stores.broker import Broker, Parcel
from tasks.stores.connect import Stores
from tasks.stores.escalations import EscalationStore
from tasks.stores.outbox import open_callback
from tasks.stores.register import Register
from tasks.stores.relay import Relay, publish_waiting, reference_of
from tasks.stores.results import ResultStore, key_of
from tasks.stores.session_cache import Remembered
from tasks.stores.sessions import SessionStore

log = get_logger()

EXHAUSTED: Final = "attempts_exhausted"
"""The error code of a request that used up its attempts and lies in the dead-letter queue."""


_NO_QUOTAS: Final = QuotaSettings()
_FREED: Final = 64
"""The most slots that the end of a request fills: its own, those of a plan's steps, those that somebody left."""
_MANY: Final = 500
_PUBLISH_SECONDS: Final = 10.0


class Outcome(Struct, frozen=True):
    """What an attempt wants to be the end of its request."""

    message: Message
    result: Result
    actor: str
    session: SessionVersion | None = None
    events: Sequence[Event] = ()


class Finisher:
    """Runs the tail. ``passed`` is told each step that is done; tests kill the process there."""

    def __init__(
        self,
        *,
        audit: AuditStream,
        results: ResultStore,
        sessions: SessionStore,
        escalations: EscalationStore,
        register: Register,
        broker: Broker,
        relay: Relay,
        now: Callable[[], datetime],
        remember_seconds: int,
        quotas: QuotaSettings = _NO_QUOTAS,
        passed: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._audit = audit
        self._results = results
        self._sessions = sessions
        self._escalations = escalations
        self._register = register
        self._broker = broker
        self._relay = relay
        self._now = now
        self._remember = remember_seconds
        self._quotas = quotas
        self.passed = passed

    async def finish(self, outcome: Outcome) -> Result:
        """Run steps 1 to 5; return the result that stands, which may be another attempt's.

        Raises:
            SessionConflict: the session went on without this attempt, whose work is discarded and must be done again.
        """
        self.passed("begin")
        result, version = outcome.result, outcome.session
        escalation = None
        if result.status is Status.ESCALATED and result.step is None:
            escalation = escalation_of(result, outcome.message)
        events = [*outcome.events, opened(escalation, outcome)] if escalation else outcome.events
        await self._audit.commit([*events, written(outcome)])
        self.passed("audit")
        if escalation:
            await self._escalations.create(escalation)
            self.passed("escalation")
        if version is not None:
            result = await self._save_session(outcome, version)
            self.passed("session")
        standing = await self._results.create(result)
        self.passed("result")
        if standing.attempt != outcome.result.attempt:
            await self._audit.commit([discarded(outcome, standing)])
        if version is not None and standing is version.result:
            # Not before the result is there. It goes first, so that the turn that is released next finds it.
            await asyncio.gather(self._sessions.keep(version), self.close(outcome.message, standing))
        else:
            await self.close(outcome.message, standing)
        return standing

    async def close(self, message: Message, result: Result) -> None:
        """Run steps 4 and 5 for a request whose result is there."""
        ref = reference_of(message)
        now = self._now().timestamp()
        if message.step is not None:
            await self._join(message, message.step, result, now)
            self.passed("join")
        elif result.error is not None and result.error.code == EXHAUSTED:
            await self._broker.publish([Parcel(keys.DEAD_LETTERS, ref, message.to_json(), now)])
        told = None
        if message.callback:
            due = now + _PUBLISH_SECONDS
            told = await open_callback(message, self._register, due=due)
            self.passed("callback")
        self.passed("notify")
        released = await self._register.clear(
            ref,
            revision=message.revision,
            digest=message.digest,
            now=now,
            remember=self._remember,
            spent=spent(self._quotas, result),
        )
        self.passed("clear")
        if told:
            # If this process dies here, the sweeper does it; so below.
            await self._relay.publish([told], now=now)
            self.passed("callback_published")
        if released:
            await publish_waiting(released, self._register, self._relay, now=now)
            self.passed("release")
        if self._quotas.of(message.tenant).max_running is not None:
            await self.release(message.tenant, most=_FREED)

    async def _join(self, message: Message, step: str, result: Result, now: float) -> None:
        """Publish what waited for a step: others that need it, or the request itself after the last one."""
        ref, ok = keys.ref(message.tenant, message.id), result.status is Status.SUCCEEDED
        freed = await self._register.join(ref, revision=message.revision, step=step, ok=ok, now=now)
        # If this process dies here, the sweeper does it.
        for other in freed:
            await publish_waiting(other, self._register, self._relay, now=now)

    async def settle(self, message: Message, told: Event) -> None:
        """End a callback: ``told`` says how, and is durable before the register forgets it. No result is written."""
        await self._audit.commit([told])
        self.passed("told")
        await self._register.clear(
            reference_of(message),
            revision=message.revision,
            digest=message.digest,
            now=self._now().timestamp(),
            remember=self._remember,
        )
        self.passed("settled")

    async def give_up(self, message: Message, told: Event) -> None:
        """End a callback that nobody took: ``told`` says why. It lies in the dead-letter queue, for somebody to see."""
        log.error("callback given up", reason=told.reason)
        now = self._now().timestamp()
        letter = Parcel(keys.DEAD_LETTERS, reference_of(message), message.to_json(), now, told.reason)
        await self._broker.publish([letter])
        self.passed("letter")
        await self.settle(message, told)

    async def release(self, tenant: str, *, most: int) -> int:
        """Publish requests that waited for a slot of ``tenant`` and have one now; return how many.

        If this process dies on the way, the sweeper publishes what has a slot, and gives out those that are left.
        """
        now = self._now().timestamp()
        slots = self._quotas.of(tenant).max_running
        rows = await self._register.release(tenant, slots=slots, now=now, due=now + _PUBLISH_SECONDS, most=most)
        if rows:
            await self._relay.publish(rows, now=now)
        return len(rows)

    async def release_all(self) -> int:
        """See :meth:`release`; for every tenant, with the slots of requests that are gone."""
        released = 0
        for tenant in await self._register.throttled_tenants():
            await self._register.heal(tenant)
            released += await self.release(tenant, most=_MANY)
        return released

    async def _save_session(self, outcome: Outcome, version: SessionVersion) -> Result:
        """Create the session's version; return the result to write, which is the one that lies in the session."""
        try:
            await self._sessions.create(version)
        except AlreadyExists:
            hint = Remembered(version.version)
            latest = await self._sessions.latest(version.tenant, version.session_id, hint=hint)
            standing = latest.result if latest else None
            if latest is None or standing is None or latest.turn != version.turn:
                await self._audit.commit([discarded(outcome, standing)])
                raise SessionConflict(f"{version.session_id}: another request took version {version.version}") from None
            return standing
        return outcome.result


def make_finisher(settings: Settings, stores: Stores, audit: AuditStream, now: Callable[[], datetime]) -> Finisher:
    """Return the tail over real stores."""
    return Finisher(
        audit=audit,
        results=stores.results,
        sessions=stores.sessions,
        escalations=stores.escalations,
        register=stores.register,
        broker=stores.broker,
        relay=stores.relay,
        now=now,
        remember_seconds=settings.leases.remember_seconds,
        quotas=settings.quotas,
    )


def written(outcome: Outcome) -> Event:
    """Return the record that announces a result, with the digest of its bytes."""
    result = outcome.result
    return Event(
        action=Action.STEP_FINISHED if result.step else Action.RESULT_WRITTEN,
        actor=outcome.actor,
        tenant=result.tenant,
        request_id=result.request_id,
        resource=key_of(result),
        reason=result.error.code if result.error else "",
        details={
            "sha256": sha256(result.to_bytes()),
            "status": result.status.value,
            "attempt": result.attempt,
            **({"step": result.step} if result.step else {}),
        },
    )


def opened(escalation: Escalation, outcome: Outcome) -> Event:
    """Return the record that a person is to answer."""
    return Event(
        action=Action.ESCALATION_OPENED,
        actor=outcome.actor,
        tenant=escalation.tenant,
        request_id=escalation.request_id,
        resource=keys.escalation(escalation.tenant, escalation.request_id, escalation.revision),
        reason=escalation.reason,
        details={"attempt": escalation.attempt},
    )


def discarded(outcome: Outcome, standing: Result | None) -> Event:
    """Return the record of an attempt whose work was in vain."""
    result = outcome.result
    return Event(
        action=Action.ATTEMPT_DISCARDED,
        actor=outcome.actor,
        tenant=result.tenant,
        request_id=result.request_id,
        resource=key_of(result),
        reason="another attempt was first",
        details={"attempt": result.attempt, "standing": standing.attempt if standing else ""},
    )


def unanswered(
    message: Message,
    status: Status,
    error: ErrorInfo,
    *,
    attempt: str,
    now: datetime,
    started_at: datetime | None = None,
) -> Result:
    """Return the result of a request that no agent answered."""
    return Result(
        request_id=message.id,
        revision=message.revision,
        step=message.step,
        tenant=message.tenant,
        status=status,
        intent=message.intent,
        error=error,
        timings=Timings(
            accepted_at=message.accepted_at,
            routed_at=message.routed_at,
            started_at=started_at,
            finished_at=now,
            classify_ms=message.classify_ms,
        ),
        session_id=message.session_id,
        request_digest=message.digest,
        attempt=attempt,
    )

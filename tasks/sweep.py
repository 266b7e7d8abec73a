"""The sweeper: puts back on a queue what fell between two steps, and ends what is overdue.

It never touches a healthy backlog: a published request counts as lost only when the queue has moved past it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from msgspec import Struct

from tasks import keys
from tasks.access.gate import Gate
from tasks.audit.stream import AuditStream
from tasks.burials import Burials
from tasks.contracts.audit import Action, Decision, Event
from tasks.contracts.base import parse_versioned
from tasks.contracts.message import Message
from tasks.contracts.result import ErrorInfo, Status
from tasks.contracts.row import Row
from tasks.contracts.words import new_id
from tasks.errors import ForgedMessage, MalformedMessage, NewerSchema
from tasks.finish import EXHAUSTED, Finisher, Outcome, unanswered
from tasks.join import may_have_plan, with_tree
from tasks.log import get_logger
from tasks.settings import Settings
from tasks.stores.broker import Broker, Parcel
from tasks.stores.plans import PlanStore
from tasks.stores.register import Due, Register
from tasks.stores.relay import Relay
from tasks.stores.results import ResultStore

log = get_logger()

ACTOR: Final = "sweeper"
_LIMIT: Final = 500
_CLOCK_SKEW_SECONDS: Final = 5.0


class Swept(Struct, frozen=True):
    """How many requests a pass published again, by reason, and how many it ended.

    ``buried``: the broker had delivered them too often, so they ended as ``failed``.
    """

    unpublished: int = 0
    lost: int = 0
    lapsed: int = 0
    expired: int = 0
    buried: int = 0

    @property
    def total(self) -> int:
        """Return how many requests the pass touched."""
        return self.unpublished + self.lost + self.lapsed + self.expired + self.buried


class Sweeper:
    """One pass at a time. Several sweepers may run: each step is atomic in the register."""

    def __init__(
        self,
        settings: Settings,
        *,
        register: Register,
        broker: Broker,
        relay: Relay,
        audit: AuditStream,
        gate: Gate,
        plans: PlanStore,
        results: ResultStore,
        finisher: Finisher,
        redact: Callable[[str], str],
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._register = register
        self._broker = broker
        self._relay = relay
        self._audit = audit
        self._gate = gate
        self._plans = plans
        self._results = results
        self._finisher = finisher
        self._redact = redact
        self._now = now
        self._suspects: set[str] = set()
        self._burials = Burials(broker, register, results, gate, self._end)

    async def run_once(self) -> Swept:
        """Look at everything once."""
        now = self._now().timestamp()
        swept = Swept(
            expired=await self._expire(now),
            lapsed=await self._take(await self._lapsed(now), Due.LAPSED, now - self._lapsed_after, now),
            lost=await self._lost(now),
            unpublished=await self._take(
                await self._register.unpublished(now=now, limit=_LIMIT), Due.UNPUBLISHED, now, now
            ),
            buried=await self._burials.look(),
        )
        await self._finisher.release_all()
        if swept.total:
            log.info(
                "swept",
                unpublished=swept.unpublished,
                lost=swept.lost,
                lapsed=swept.lapsed,
                expired=swept.expired,
                buried=swept.buried,
            )
        return swept

    @property
    def _lapsed_after(self) -> float:
        return 2 * self._settings.leases.heartbeat_seconds

    async def _lapsed(self, now: float) -> list[str]:
        return await self._register.lapsed(before=now - self._lapsed_after, limit=_LIMIT)

    async def _lost(self, now: float) -> int:
        """Publish what the queues have moved past.

        A message that was popped a moment ago is not in its queue either, and its row has no lease yet. So a row
        must be found twice, one pass apart, before it is taken for lost.
        """
        found: set[str] = set()
        taken = 0
        for pool in (*self._settings.pools, *self._settings.sharded):
            for queue in keys.queues(pool):
                refs, before = await self._unbegun(queue, now)
                taken += await self._take([ref for ref in refs if ref in self._suspects], Due.LOST, before, now)
                found.update(refs)
        self._suspects = found
        return taken

    async def _unbegun(self, queue: str, now: float) -> tuple[list[str], float]:
        """Return what was published to ``queue`` before a time that it has moved past, and not begun; and that time."""
        before = now - self._settings.leases.lost_seconds
        refs = await self._register.lost(queue, before=before, limit=_LIMIT)
        # The queue is asked only where there is something to ask about: SQS wants money for each answer.
        oldest = await self._broker.oldest(queue) if refs else None
        if oldest is None:
            return refs, before
        if oldest > now + _CLOCK_SKEW_SECONDS:
            # A clock that is ahead says nothing about what is older. It is looked at again when it is gone.
            log.warning("a message from the future", queue=queue, ahead_seconds=oldest - now)
            return [], before
        before = min(before, oldest - _CLOCK_SKEW_SECONDS)
        return await self._register.lost(queue, before=before, limit=_LIMIT), before

    async def _take(self, refs: list[str], why: Due, before: float, now: float) -> int:
        due = now + self._settings.leases.unpublished_seconds
        rows = [
            row for ref in refs if (row := await self._register.reclaim(ref, why, before=before, due=due)) is not None
        ]
        if not rows:
            return 0
        await self._audit.commit([event for row in rows for event in _events(row, why)])
        hopeless = [row for row in rows if row.losses > self._settings.queue.attempts]
        for row in hopeless:
            # Something takes its message away again and again, and never begins: nobody will answer it.
            error = ErrorInfo(code=EXHAUSTED, message=f"lost {row.losses} times", attempts=row.attempts)
            await self._end(row, Status.FAILED, error)
        await self._relay.publish([row for row in rows if row not in hopeless], now=now)
        return len(rows)

    async def _expire(self, now: float) -> int:
        ended = 0
        for ref in await self._register.overdue(now=now, limit=_LIMIT):
            row = await self._register.get(ref)
            error = ErrorInfo(code="expired", message="the deadline passed before the request was done")
            ended += row is not None and await self._end(row, Status.EXPIRED, error)
        return ended

    async def _end(self, row: Row, status: Status, error: ErrorInfo) -> bool:
        """End a request that no attempt holds; tell whether it was ended."""
        ref = keys.ref(row.tenant, row.id)
        try:
            message = parse_versioned(Message, row.message)
            self._gate.verify(message)
        except ForgedMessage as problem:
            return await self._drop(row, problem)
        except (MalformedMessage, NewerSchema) as problem:
            log.warning("left for a newer sweeper", ref=ref, reason=str(problem))
            return False
        holder, now = new_id(), self._now()
        lease = self._settings.leases.lease_seconds
        if not await self._register.seize(ref, holder, now=now.timestamp(), lease=lease):
            return False  # an attempt is at it, and looks at the deadline itself
        if message.delivery:
            told = _event(row, Action.CALLBACK_FAILED, reason=f"{error.code}: {error.message}")
            await self._finisher.give_up(message, told)
            return True
        result = unanswered(message, status, error, attempt=holder, now=now)
        if may_have_plan(self._settings, message):
            result = await with_tree(result, self._plans, self._results, self._redact)
        action = Action.REQUEST_EXPIRED if status is Status.EXPIRED else Action.REQUEST_DEAD_LETTERED
        # A step is no request: the end of one is on record as that, whatever it was.
        events = [] if message.step else [_event(row, action, reason=error.message)]
        await self._finisher.finish(Outcome(message, result, actor=ACTOR, events=events))
        return True

    async def _drop(self, row: Row, problem: ForgedMessage) -> bool:
        """Take a row that no door wrote off the register, without a result; keep its message in quarantine."""
        ref, now = keys.ref(row.tenant, row.id), self._now().timestamp()
        if not await self._register.seize(ref, new_id(), now=now, lease=self._settings.leases.lease_seconds):
            return False
        log.error("row quarantined", ref=ref, reason=str(problem))
        await self._broker.publish([Parcel(keys.QUARANTINE, ref, row.message, now, str(problem))])
        forged = _event(row, Action.GRANT_FORGED, reason=str(problem)).changed(decision=Decision.DENY)
        await self._audit.commit([forged])
        await self._register.clear(ref, revision=row.revision, digest=row.digest, now=now, remember=1)
        return True


def _events(row: Row, why: Due) -> list[Event]:
    again = _event(row, Action.REQUEST_REENQUEUED, reason=why.value)
    if row.recorded:
        # What waited for its time on purpose (a retry, a released session) is not news.
        return [] if why is Due.UNPUBLISHED else [again]
    accepted = _event(row, Action.REQUEST_ACCEPTED, reason="recovered: the door stopped before it recorded this")
    return [accepted, again]


def _event(row: Row, action: Action, *, reason: str) -> Event:
    step = keys.step_of(row.id)
    return Event(
        action=action,
        actor=ACTOR,
        tenant=row.tenant,
        request_id=keys.request_of(row.id),
        resource=row.queue,
        reason=reason,
        details={
            "digest": row.digest,
            "generation": row.generation,
            "attempts": row.attempts,
            **({"step": step} if step else {}),
            **({"delivery": True} if keys.is_delivery(row.id) else {}),
        },
    )

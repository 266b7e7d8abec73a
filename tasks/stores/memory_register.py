"""The register in memory, for unit tests: step for step what :mod:`tasks.stores.scripts` does."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import sha1
from typing import Any

from tasks import keys
from tasks.contracts.row import Row, Stage
from tasks.errors import LeaseLost
from tasks.stores.memory_plans import MemoryPlan, MemorySteps
from tasks.stores.register import (
    NO_LIMITS,
    SPENT_FIELDS,
    Begun,
    Due,
    Handover,
    Kept,
    Lease,
    Limits,
    Opened,
    Spent,
    Verdict,
    turn,
)

Index = dict[str, float]


class MemoryRegister(MemorySteps):
    """See :class:`tasks.stores.register.Register`. ``forget`` plays the end of a tombstone's time."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._done: dict[str, tuple[str, int]] = {}
        self._unread: set[str] = set()
        self._unpublished: Index = {}
        self._leases: Index = {}
        self._deadlines: Index = {}
        self._queued: dict[str, Index] = defaultdict(dict)
        self._released: dict[str, str] = {}
        self._lines: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._admitted: dict[str, set[str]] = defaultdict(set)
        self._throttled: dict[str, Index] = defaultdict(dict)
        self._usage: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._plans = defaultdict(MemoryPlan)

    def forget(self, ref: str) -> None:
        """Drop the tombstone of ``ref``."""
        self._done.pop(ref, None)

    async def open(
        self, rows: Sequence[Row], *, due: float, limits: Sequence[Limits] = (), day: str = ""
    ) -> list[Opened]:
        """See the port."""
        chosen = limits or [NO_LIMITS] * len(rows)
        return [self._open(row, due, limit, day) for row, limit in zip(rows, chosen, strict=True)]

    def _open(self, row: Row, due: float, limit: Limits, day: str) -> Opened:
        ref = keys.ref(row.tenant, row.id)
        known = self._known(ref, row)
        if known:
            return known
        if limit.most_open is not None and self._open_of(row.tenant) >= limit.most_open:
            return Opened.FULL
        used = self._usage[row.tenant, day]
        if limit.tokens is not None and used["input_tokens"] + used["output_tokens"] >= limit.tokens:
            return Opened.SPENT
        if limit.micros is not None and used["micros"] >= limit.micros:
            return Opened.SPENT
        is_throttled = limit.slots is not None and len(self._admitted[row.tenant]) >= limit.slots
        self.rows[ref] = row.changed(throttled=is_throttled)
        if is_throttled:
            self._throttled[row.tenant][ref] = turn(row)
        else:
            self._admitted[row.tenant].add(ref)
            self._unpublished[ref] = due
        if row.deadline is not None:
            self._deadlines[ref] = row.deadline
        if row.session:
            self._line(row).append(ref)
        return Opened.THROTTLED if is_throttled else Opened.CREATED

    def _known(self, ref: str, row: Row) -> Opened | None:
        """Return why ``row`` is not new, None where it is."""
        standing = self.rows.get(ref)
        digest, revision = (standing.digest, standing.revision) if standing else self._done.get(ref, (row.digest, 0))
        if digest != row.digest:
            return Opened.CONFLICT
        if standing is None:
            return Opened.FINISHED if row.revision <= revision else None
        return Opened.UNFINISHED if row.revision > revision else Opened.SAME

    def _open_of(self, tenant: str) -> int:
        return sum(row.tenant == tenant and keys.request_of(row.id) == row.id for row in self.rows.values())

    async def outbox(self, row: Row, *, due: float, again: bool = False) -> bool:
        """See the port."""
        ref = keys.ref(row.tenant, row.id)
        if ref in self.rows or (ref in self._done and not again):
            return False
        self.rows[ref] = row
        self._unpublished[ref] = due
        return True

    async def published(self, marks: Sequence[tuple[str, str, int]], *, now: float) -> None:
        """See the port."""
        for ref, queue, generation in marks:
            row = self.rows.get(ref)
            if row and row.throttled:
                self._set(ref, recorded=True)
                continue
            if row is None or (row.queue, row.generation) != (queue, generation):
                continue
            if row.published or row.holder or row.parked:
                continue
            self._set(ref, published=True, recorded=True, queued_at=now)
            self._unpublished.pop(ref, None)
            self._queued[queue][ref] = now

    async def begin(  # noqa: PLR0911  as many ways out as there are verdicts
        self,
        ref: str,
        *,
        stage: Stage,
        revision: int,
        digest: str,
        holder: str,
        now: float,
        lease: float,
        attempts: int,
        queue: str = "",
        seal: str = "",
    ) -> Begun:
        """See the port."""
        row = self.rows.get(ref)
        if row is None:
            past = self._done.get(ref, ("", 0))
            if ref in self._unread and past == (digest, revision):
                self._unread.discard(ref)
                return Begun(Verdict.DROPPED)
            return Begun(Verdict.FINISHED if revision <= past[1] else Verdict.UNKNOWN)
        if row.digest != digest:
            return Begun(Verdict.MISMATCH)
        if (row.stage, row.revision) != (stage, revision) or queue not in ("", row.queue):
            return Begun(Verdict.STALE)
        if seal and seal != sha1(row.message.encode(), usedforsecurity=False).hexdigest():
            return Begun(Verdict.MISMATCH)
        if row.holder == holder:
            verdict = Verdict.EXHAUSTED if row.attempts > attempts else Verdict.STARTED
            return Begun(verdict, row.attempts)
        if _is_live(row, now):
            return Begun(Verdict.HELD)
        self._queued[row.queue].pop(ref, None)
        self._unpublished.pop(ref, None)
        if stage is Stage.WORK and row.session and self._line(row)[:1] != [ref]:
            self._set(ref, parked=True, published=False, holder="")
            self._leases.pop(ref, None)
            self._admitted[row.tenant].discard(ref)
            return Begun(Verdict.PARKED)
        count = row.attempts + 1
        self._set(
            ref,
            holder=holder,
            lease_end=now + lease,
            attempts=count,
            published=True,
            recorded=True,
            parked=False,
            throttled=False,
            losses=0,
        )
        if stage is not Stage.DELIVER:
            self._admitted[row.tenant].add(ref)
        self._leases[ref] = now + lease
        return Begun(Verdict.EXHAUSTED if count > attempts else Verdict.STARTED, count)

    async def extend(self, leases: Sequence[Lease], *, now: float, lease: float) -> list[Kept]:
        """See the port."""
        return [self._extend(*one, now + lease) for one in leases]

    def _extend(self, ref: str, holder: str, revision: int, end: float) -> Kept:
        row = self.rows.get(ref)
        if row is None:
            return Kept.ENDED if revision <= self._done.get(ref, ("", 0))[1] else Kept.KEPT
        if not row.holder:
            return Kept.KEPT
        if row.holder != holder:
            return Kept.LOST
        self._set(ref, lease_end=end)
        self._leases[ref] = end
        return Kept.KEPT

    async def advance(self, ref: str, holder: str, handover: Handover, *, due: float) -> int:
        """See the port."""
        if self._released.get(ref) == holder:
            return self.rows[ref].generation
        row = self._held(ref, holder)
        self._released[ref] = holder
        self._set(
            ref,
            holder="",
            stage=handover.stage,
            queue=handover.queue,
            message=handover.message,
            published=False,
            attempts=0,
            due=due,
            generation=row.generation + 1,
        )
        self._leases.pop(ref, None)
        self._unpublished[ref] = due
        return row.generation + 1

    async def postpone(self, ref: str, holder: str, *, due: float, counted: bool) -> None:
        """See the port."""
        if self._released.get(ref) == holder:
            return
        row = self._held(ref, holder)
        self._released[ref] = holder
        attempts = row.attempts if counted else row.attempts - 1
        self._set(ref, holder="", published=False, due=due, attempts=attempts, generation=row.generation + 1)
        self._leases.pop(ref, None)
        self._unpublished[ref] = due

    async def clear(
        self, ref: str, *, revision: int, digest: str, now: float, remember: int, spent: Spent | None = None
    ) -> str | None:
        """See the port. Nothing is forgotten by itself: no clock runs here."""
        row = self.rows.get(ref)
        if row and row.revision != revision:
            return None
        self._bury(ref, digest, revision)
        if row is None:
            return None
        self._disband(ref, revision)
        self._throttled[row.tenant].pop(ref, None)
        if spent:
            counts = {name: getattr(spent, name) for name in SPENT_FIELDS}
            self._usage[row.tenant, spent.day].update({"requests": spent.requests, **counts})
        return self._release(row, ref, now) if row.session else None

    def _bury(self, ref: str, digest: str, revision: int) -> None:
        """Remove the row where there is one, and remember that the revision has ended."""
        row, past = self.rows.pop(ref, None), self._done.get(ref, ("", 0))
        if revision > past[1] - (row is not None):
            self._done[ref] = digest, revision
            self._unread.discard(ref)
            if row and row.published and not row.holder:
                self._unread.add(ref)
        if row is None:
            return
        self._released.pop(ref, None)
        for index in (self._leases, self._unpublished, self._deadlines, self._queued[row.queue]):
            index.pop(ref, None)
        self._admitted[row.tenant].discard(ref)

    async def release(self, tenant: str, *, slots: int | None, now: float, due: float, most: int) -> list[Row]:
        """See the port."""
        waiting, released = self._throttled[tenant], []
        for _ in range(most):
            if not waiting or (slots is not None and len(self._admitted[tenant]) >= slots):
                break
            ref = min(waiting, key=lambda ref: (waiting[ref], ref))
            del waiting[ref]
            row = self.rows.get(ref)
            if row and row.throttled:
                self._admitted[tenant].add(ref)
                self._unpublished[ref] = due
                changed = self._set(ref, throttled=False, due=due)
                released += [changed] if changed.recorded else []
        return released

    async def throttled_tenants(self) -> list[str]:
        """See the port."""
        return sorted(tenant for tenant, waiting in self._throttled.items() if waiting)

    async def heal(self, tenant: str) -> None:
        """See the port."""
        self._admitted[tenant] &= self.rows.keys()

    async def usage(self, tenant: str, day: str) -> dict[str, int]:
        """See the port."""
        return {name: self._usage[tenant, day][name] for name in ("requests", *SPENT_FIELDS)}

    async def load(self, tenant: str) -> dict[str, int]:
        """See the port."""
        admitted, throttled = len(self._admitted[tenant]), len(self._throttled[tenant])
        return {"open": self._open_of(tenant), "admitted": admitted, "throttled": throttled}

    def _release(self, row: Row, ref: str, now: float) -> str | None:
        line = self._line(row)
        line[:] = [other for other in line if other != ref]
        successor = self.rows.get(line[0]) if line else None
        if successor is None or not successor.parked:
            return None
        self._set(line[0], parked=False, published=False, due=now, generation=successor.generation + 1)
        self._unpublished[line[0]] = now
        self._admitted[row.tenant].add(line[0])
        return line[0]

    async def seize(self, ref: str, holder: str, *, now: float, lease: float) -> bool:
        """See the port."""
        row = self.rows.get(ref)
        if row is None or (_is_live(row, now) and row.holder != holder):
            return False
        self._set(ref, holder=holder, lease_end=now + lease, parked=False, throttled=False)
        self._queued[row.queue].pop(ref, None)
        self._unpublished.pop(ref, None)
        self._leases[ref] = now + lease
        return True

    async def seen(self, ref: str, *, now: float) -> None:
        """See the port."""
        row = self.rows.get(ref)
        if row is not None and ref in self._queued[row.queue]:
            self._set(ref, queued_at=now)
            self._queued[row.queue][ref] = now

    async def get(self, ref: str) -> Row | None:
        """See the port."""
        return self.rows.get(ref)

    async def are_open(self, refs: Sequence[str]) -> list[bool]:
        """See the port."""
        return [ref in self.rows for ref in refs]

    async def unpublished(self, *, now: float, limit: int) -> list[str]:
        """See the port."""
        return _older(self._unpublished, now, limit)

    async def lost(self, queue: str, *, before: float, limit: int) -> list[str]:
        """See the port."""
        return _older(self._queued[queue], before, limit)

    async def lapsed(self, *, before: float, limit: int) -> list[str]:
        """See the port."""
        return _older(self._leases, before, limit)

    async def overdue(self, *, now: float, limit: int) -> list[str]:
        """See the port."""
        return _older(self._deadlines, now, limit)

    async def reclaim(self, ref: str, why: Due, *, before: float, due: float) -> Row | None:
        """See the port."""
        row = self.rows.get(ref)
        if row is None:
            self._leases.pop(ref, None)
            self._unpublished.pop(ref, None)
            return None
        queued = self._queued[row.queue]
        score = {Due.UNPUBLISHED: self._unpublished, Due.LOST: queued, Due.LAPSED: self._leases}[why].get(ref)
        if score is None or score > before:
            return None
        self._leases.pop(ref, None)
        queued.pop(ref, None)
        self._unpublished[ref] = due
        losses = row.losses + (why is Due.LOST)
        return self._set(
            ref, holder="", published=False, parked=False, due=due, losses=losses, generation=row.generation + 1
        )

    async def counts(self) -> dict[str, int]:
        """See the port."""
        return {"leased": len(self._leases), "delayed": len(self._unpublished)}

    def _set(self, ref: str, **fields: Any) -> Row:
        self.rows[ref] = self.rows[ref].changed(**fields)
        return self.rows[ref]

    def _held(self, ref: str, holder: str) -> Row:
        row = self.rows.get(ref)
        if row is None or row.holder != holder:
            raise LeaseLost(f"{ref}: another attempt holds the lease")
        return row

    def _line(self, row: Row) -> list[str]:
        """Return the session's line, without refs at its head whose row is gone."""
        line = self._lines[row.tenant, row.session]
        while line and line[0] not in self.rows:
            del line[0]
        return line


def _is_live(row: Row, now: float) -> bool:
    return bool(row.holder) and row.lease_end > now


def _older(index: Index, than: float, limit: int) -> list[str]:
    found = sorted((score, ref) for ref, score in index.items() if score <= than)
    return [ref for _, ref in found[:limit]]

"""The register on a Redis-protocol server that keeps what it acknowledged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tasks import keys
from tasks.contracts.row import Row, Stage
from tasks.errors import LeaseLost
from tasks.stores import scripts, step_scripts
from tasks.stores.link import Command, Link
from tasks.stores.outbox_scripts import OUTBOX
from tasks.stores.register import (
    NO_LIMITS,
    SPENT_FIELDS,
    Begun,
    Branch,
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

_TRUE_FALSE = {True: "1", False: "0"}


class RedisRegister:
    """See :class:`tasks.stores.register.Register`. Not shared between event loops."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def open(
        self, rows: Sequence[Row], *, due: float, limits: Sequence[Limits] = (), day: str = ""
    ) -> list[Opened]:
        """See the port."""
        calls: list[tuple[Sequence[str], Command]] = []
        for row, limit in zip(rows, limits or [NO_LIMITS] * len(rows), strict=True):
            ref = keys.ref(row.tenant, row.id)
            line = keys.session_line(row.tenant, row.session) if row.session else ""
            deadline = "" if row.deadline is None else repr(row.deadline)
            fields = [part for pair in to_hash(row, line).items() for part in pair]
            about = [ref, row.digest, repr(due), deadline, line, *_limit(limit), repr(turn(row)), row.tenant]
            places = [keys.row(ref), keys.done(ref), keys.UNPUBLISHED, keys.DEADLINES, *_tenant_keys(row.tenant, day)]
            calls.append((places, [*about, row.revision, *fields]))
        return [Opened(_text(answer)) for answer in await self._link.run_each(scripts.OPEN, calls)]

    async def outbox(self, row: Row, *, due: float, again: bool = False) -> bool:
        """See the port."""
        ref = keys.ref(row.tenant, row.id)
        fields = [part for pair in to_hash(row, "").items() for part in pair]
        places = [keys.row(ref), keys.done(ref), keys.UNPUBLISHED]
        return bool(await self._link.run(OUTBOX, places, [ref, repr(due), _TRUE_FALSE[again], *fields]))

    async def published(self, marks: Sequence[tuple[str, str, int]], *, now: float) -> None:
        """See the port."""
        await self._link.run_each(
            scripts.PUBLISHED,
            [
                ([keys.row(ref), keys.UNPUBLISHED, keys.queued(queue)], [ref, queue, generation, repr(now)])
                for ref, queue, generation in marks
            ],
        )

    async def begin(
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
        verdict, count = await self._link.run(
            scripts.BEGIN,
            [keys.row(ref), keys.done(ref), keys.LEASES, keys.UNPUBLISHED],
            [ref, stage.value, revision, digest, holder, repr(now), repr(now + lease), attempts, queue, seal],
        )
        return Begun(Verdict(_text(verdict)), int(count))

    async def extend(self, leases: Sequence[Lease], *, now: float, lease: float) -> list[Kept]:
        """See the port."""
        end = repr(now + lease)
        kept = await self._link.run_each(
            scripts.EXTEND,
            [
                ([keys.row(ref), keys.LEASES, keys.done(ref)], [ref, holder, end, revision])
                for ref, holder, revision in leases
            ],
        )
        return [Kept(int(one)) for one in kept]

    async def advance(self, ref: str, holder: str, handover: Handover, *, due: float) -> int:
        """See the port."""
        generation = await self._link.run(
            scripts.ADVANCE,
            [keys.row(ref), keys.LEASES, keys.UNPUBLISHED],
            [ref, holder, handover.stage.value, handover.queue, handover.message, repr(due)],
        )
        if int(generation) < 0:
            raise LeaseLost(f"{ref}: another attempt holds the lease")
        return int(generation)

    async def postpone(self, ref: str, holder: str, *, due: float, counted: bool) -> None:
        """See the port."""
        kept = await self._link.run(
            scripts.POSTPONE,
            [keys.row(ref), keys.LEASES, keys.UNPUBLISHED],
            [ref, holder, repr(due), _TRUE_FALSE[counted]],
        )
        if not kept:
            raise LeaseLost(f"{ref}: another attempt holds the lease")

    async def clear(
        self, ref: str, *, revision: int, digest: str, now: float, remember: int, spent: Spent | None = None
    ) -> str | None:
        """See the port."""
        tenant = ref.partition("/")[0]
        places = [keys.open_requests(tenant), keys.admitted(tenant), keys.throttled(tenant)]
        counts: list[str | int] = []
        if spent:
            used = {name: getattr(spent, name) for name in SPENT_FIELDS}
            counts = [
                "requests",
                spent.requests,
                *(part for name, count in used.items() if count for part in (name, count)),
            ]
        released = await self._link.run(
            scripts.CLEAR,
            [
                *(keys.row(ref), keys.done(ref), keys.LEASES, keys.UNPUBLISHED, keys.DEADLINES, *places),
                keys.usage(tenant, spent.day if spent else ""),
            ],
            [ref, revision, digest, repr(now), remember, *counts],
        )
        return _text(released) if released else None

    async def fan_out(
        self,
        ref: str,
        holder: str,
        branches: Sequence[Branch],
        *,
        steps: Sequence[str],
        ended: Sequence[str],
        due: float,
        look: float,
    ) -> list[str] | None:
        """See the port."""
        rows: list[str | int] = []
        for branch in branches:
            needed_by = [other.step for other in branches if branch.step in other.needs]
            fields = [part for pair in to_hash(branch.row, "").items() for part in pair]
            rows += [keys.ref(branch.row.tenant, branch.row.id), " ".join(branch.needs), " ".join(needed_by)]
            rows += [_TRUE_FALSE[branch.vital], len(fields), *fields]
        plan = keys.plan_ref(ref, branches[0].row.revision)
        state, *ready = await self._link.run(
            step_scripts.FAN_OUT,
            [keys.row(ref), keys.LEASES, keys.UNPUBLISHED, keys.joined(plan)],
            [ref, holder, repr(due), repr(look), " ".join(steps), " ".join(ended), len(branches), *rows],
        )
        if int(state) < 0:
            raise LeaseLost(f"{ref}: another attempt holds the lease")
        return [_text(found) for found in ready] if int(state) else None

    async def join(self, ref: str, *, revision: int, step: str, ok: bool, now: float) -> list[str]:
        """See the port."""
        plan = keys.plan_ref(ref, revision)
        released = await self._link.run(
            step_scripts.JOIN,
            [keys.row(f"{plan}.{step}"), keys.row(ref), keys.joined(plan), keys.UNPUBLISHED],
            [ref, revision, step, _TRUE_FALSE[ok], repr(now)],
        )
        return [_text(found) for found in released]

    async def release(self, tenant: str, *, slots: int | None, now: float, due: float, most: int) -> list[Row]:
        """See the port."""
        flat = await self._link.run(
            scripts.RELEASE,
            [keys.admitted(tenant), keys.throttled(tenant), keys.THROTTLED, keys.UNPUBLISHED],
            [tenant, "" if slots is None else slots, repr(due), most],
        )
        return [
            from_hash(_text(ref), dict(zip(fields[::2], fields[1::2], strict=True)))
            for ref, fields in zip(flat[::2], flat[1::2], strict=True)
        ]

    async def throttled_tenants(self) -> list[str]:
        """See the port."""
        return sorted(_text(tenant) for tenant in await self._link.call("SMEMBERS", keys.THROTTLED))

    async def heal(self, tenant: str) -> None:
        """See the port."""
        await self._link.run(scripts.HEAL, [keys.open_requests(tenant), keys.admitted(tenant)], [])

    async def usage(self, tenant: str, day: str) -> dict[str, int]:
        """See the port."""
        fields = await self._link.call("HGETALL", keys.usage(tenant, day))
        found = {_text(name): int(count) for name, count in fields.items()}
        return {name: found.get(name, 0) for name in ("requests", *SPENT_FIELDS)}

    async def load(self, tenant: str) -> dict[str, int]:
        """See the port."""
        counts = await self._link.calls(
            [
                ("SCARD", keys.open_requests(tenant)),
                ("SCARD", keys.admitted(tenant)),
                ("ZCARD", keys.throttled(tenant)),
            ]
        )
        return dict(zip(("open", "admitted", "throttled"), map(int, counts), strict=True))

    async def seize(self, ref: str, holder: str, *, now: float, lease: float) -> bool:
        """See the port."""
        taken = await self._link.run(
            scripts.SEIZE,
            [keys.row(ref), keys.LEASES, keys.UNPUBLISHED],
            [ref, holder, repr(now), repr(now + lease)],
        )
        return bool(taken)

    async def seen(self, ref: str, *, now: float) -> None:
        """See the port."""
        await self._link.run(scripts.SEEN, [keys.row(ref)], [ref, repr(now)])

    async def get(self, ref: str) -> Row | None:
        """See the port."""
        fields = await self._link.call("HGETALL", keys.row(ref))
        return from_hash(ref, fields) if fields else None

    async def are_open(self, refs: Sequence[str]) -> list[bool]:
        """See the port."""
        return [bool(found) for found in await self._link.calls([("EXISTS", keys.row(ref)) for ref in refs])]

    async def unpublished(self, *, now: float, limit: int) -> list[str]:
        """See the port."""
        return await self._older(keys.UNPUBLISHED, now, limit)

    async def lost(self, queue: str, *, before: float, limit: int) -> list[str]:
        """See the port."""
        return await self._older(keys.queued(queue), before, limit)

    async def lapsed(self, *, before: float, limit: int) -> list[str]:
        """See the port."""
        return await self._older(keys.LEASES, before, limit)

    async def overdue(self, *, now: float, limit: int) -> list[str]:
        """See the port."""
        return await self._older(keys.DEADLINES, now, limit)

    async def reclaim(self, ref: str, why: Due, *, before: float, due: float) -> Row | None:
        """See the port."""
        flat = await self._link.run(
            scripts.RECLAIM,
            [keys.row(ref), keys.LEASES, keys.UNPUBLISHED],
            [ref, why.value, repr(before), repr(due)],
        )
        return from_hash(ref, dict(zip(flat[::2], flat[1::2], strict=True))) if flat else None

    async def counts(self) -> dict[str, int]:
        """See the port."""
        leased, delayed = await self._link.calls([("ZCARD", keys.LEASES), ("ZCARD", keys.UNPUBLISHED)])
        return {"leased": int(leased), "delayed": int(delayed)}

    async def _older(self, key: str, than: float, limit: int) -> list[str]:
        found = await self._link.call("ZRANGEBYSCORE", key, "-inf", repr(than), "LIMIT", 0, limit)
        return [_text(ref) for ref in found]


def to_hash(row: Row, session_line: str) -> dict[str, str]:
    """Return the row as Redis keeps it: strings only. ``session`` becomes the key of the session's line."""
    return {
        "digest": row.digest,
        "stage": row.stage.value,
        "revision": str(row.revision),
        "queue": row.queue,
        "message": row.message,
        "accepted_at": repr(row.accepted_at),
        "published": _TRUE_FALSE[row.published],
        "recorded": _TRUE_FALSE[row.recorded],
        "generation": str(row.generation),
        "queued_at": repr(row.queued_at),
        "due": repr(row.due),
        "attempts": str(row.attempts),
        "losses": str(row.losses),
        "holder": row.holder,
        "lease_end": repr(row.lease_end),
        "deadline": "" if row.deadline is None else repr(row.deadline),
        "session": session_line,
        "parked": _TRUE_FALSE[row.parked],
        "throttled": _TRUE_FALSE[row.throttled],
    }


def from_hash(ref: str, fields: Mapping[bytes, bytes]) -> Row:
    """Return the row that Redis kept under ``ref``."""
    tenant, _, request_id = ref.partition("/")
    values: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
    values["tenant"] = tenant
    values["id"] = request_id
    values["deadline"] = values["deadline"] or None
    values["session"] = values["session"].rpartition("/")[2]
    return msgspec.convert(values, Row, strict=False)


def _tenant_keys(tenant: str, day: str) -> list[str]:
    sets = [keys.open_requests(tenant), keys.admitted(tenant), keys.throttled(tenant)]
    return [*sets, keys.THROTTLED, keys.usage(tenant, day)]


def _limit(limit: Limits) -> list[str | int]:
    return ["" if most is None else most for most in (limit.most_open, limit.slots, limit.tokens, limit.micros)]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

"""The register on a Redis-protocol server that keeps what it acknowledged."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, cast

import redis.asyncio

from tasks import keys
from tasks.contracts.row import Row, Stage
from tasks.errors import LeaseLost
from tasks.stores import scripts
from tasks.stores.redis_errors import guarded
from tasks.stores.register import Begun, Due, Handover, Opened, Verdict

_TRUE_FALSE = {True: "1", False: "0"}


class RedisRegister:
    """See :class:`tasks.stores.register.Register`. Not shared between event loops."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._redis = client
        self._open = client.register_script(scripts.OPEN)
        self._published = client.register_script(scripts.PUBLISHED)
        self._begin = client.register_script(scripts.BEGIN)
        self._extend = client.register_script(scripts.EXTEND)
        self._advance = client.register_script(scripts.ADVANCE)
        self._postpone = client.register_script(scripts.POSTPONE)
        self._clear = client.register_script(scripts.CLEAR)
        self._seize = client.register_script(scripts.SEIZE)
        self._seen = client.register_script(scripts.SEEN)
        self._reclaim = client.register_script(scripts.RECLAIM)

    async def open(self, rows: Sequence[Row], *, due: float) -> list[Opened]:
        """See the port."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for row in rows:
                ref = keys.ref(row.tenant, row.id)
                line = keys.session_line(row.tenant, row.session) if row.session else ""
                deadline = "" if row.deadline is None else repr(row.deadline)
                fields = [part for pair in to_hash(row, line).items() for part in pair]
                await self._open(
                    keys=[keys.row(ref), keys.done(ref), keys.UNPUBLISHED, keys.DEADLINES],
                    args=[ref, row.digest, due, deadline, line, *fields],
                    client=pipe,
                )
            return [Opened(_text(answer)) for answer in await guarded("register", pipe.execute())]

    async def published(self, marks: Sequence[tuple[str, str, int]], *, now: float) -> None:
        """See the port."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for ref, queue, generation in marks:
                await self._published(
                    keys=[keys.row(ref), keys.UNPUBLISHED, keys.queued(queue)],
                    args=[ref, queue, generation, repr(now)],
                    client=pipe,
                )
            await guarded("register", pipe.execute())

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
    ) -> Begun:
        """See the port."""
        verdict, count = await guarded(
            "register",
            self._begin(
                keys=[keys.row(ref), keys.done(ref), keys.LEASES, keys.UNPUBLISHED],
                args=[ref, stage.value, revision, digest, holder, repr(now), repr(now + lease), attempts],
            ),
        )
        return Begun(Verdict(_text(verdict)), int(count))

    async def extend(self, leases: Sequence[tuple[str, str]], *, now: float, lease: float) -> list[bool]:
        """See the port."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for ref, holder in leases:
                args = [ref, holder, repr(now + lease)]
                await self._extend(keys=[keys.row(ref), keys.LEASES], args=args, client=pipe)
            return [bool(kept) for kept in await guarded("register", pipe.execute())]

    async def advance(self, ref: str, holder: str, handover: Handover, *, due: float) -> int:
        """See the port."""
        generation = await guarded(
            "register",
            self._advance(
                keys=[keys.row(ref), keys.LEASES, keys.UNPUBLISHED],
                args=[ref, holder, handover.stage.value, handover.queue, handover.message, repr(due)],
            ),
        )
        if int(generation) < 0:
            raise LeaseLost(f"{ref}: another attempt holds the lease")
        return int(generation)

    async def postpone(self, ref: str, holder: str, *, due: float, counted: bool) -> None:
        """See the port."""
        kept = await guarded(
            "register",
            self._postpone(
                keys=[keys.row(ref), keys.LEASES, keys.UNPUBLISHED],
                args=[ref, holder, repr(due), _TRUE_FALSE[counted]],
            ),
        )
        if not kept:
            raise LeaseLost(f"{ref}: another attempt holds the lease")

    async def clear(self, ref: str, *, revision: int, digest: str, now: float, remember: int) -> str | None:
        """See the port."""
        released = await guarded(
            "register",
            self._clear(
                keys=[keys.row(ref), keys.done(ref), keys.LEASES, keys.UNPUBLISHED, keys.DEADLINES],
                args=[ref, revision, digest, repr(now), remember],
            ),
        )
        return _text(released) if released else None

    async def seize(self, ref: str, holder: str, *, now: float, lease: float) -> bool:
        """See the port."""
        taken = await guarded(
            "register",
            self._seize(
                keys=[keys.row(ref), keys.LEASES, keys.UNPUBLISHED],
                args=[ref, holder, repr(now), repr(now + lease)],
            ),
        )
        return bool(taken)

    async def seen(self, ref: str, *, now: float) -> None:
        """See the port."""
        await guarded("register", self._seen(keys=[keys.row(ref)], args=[ref, repr(now)]))

    async def get(self, ref: str) -> Row | None:
        """See the port."""
        fields = await guarded("register", cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(keys.row(ref))))
        return from_hash(ref, fields) if fields else None

    async def are_open(self, refs: Sequence[str]) -> list[bool]:
        """See the port."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for ref in refs:
                pipe.exists(keys.row(ref))
            return [bool(found) for found in await guarded("register", pipe.execute())]

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
        flat = await guarded(
            "register",
            self._reclaim(
                keys=[keys.row(ref), keys.LEASES, keys.UNPUBLISHED],
                args=[ref, why.value, repr(before), repr(due)],
            ),
        )
        if not flat:
            return None
        return from_hash(ref, dict(zip(flat[::2], flat[1::2], strict=True)))

    async def counts(self) -> dict[str, int]:
        """See the port."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.zcard(keys.LEASES)
            pipe.zcard(keys.UNPUBLISHED)
            leased, delayed = await guarded("register", pipe.execute())
        return {"leased": int(leased), "delayed": int(delayed)}

    async def _older(self, key: str, than: float, limit: int) -> list[str]:
        found = await guarded(
            "register", cast("Awaitable[list[bytes]]", self._redis.zrangebyscore(key, "-inf", than, start=0, num=limit))
        )
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
    }


def from_hash(ref: str, fields: Mapping[bytes, bytes]) -> Row:
    """Return the row that Redis kept under ``ref``."""
    tenant, _, request_id = ref.partition("/")
    values: dict[str, Any] = {_text(name): _text(value) for name, value in fields.items()}
    values["deadline"] = values["deadline"] or None
    values["session"] = values["session"].rpartition("/")[2]
    return Row.model_validate({"tenant": tenant, "id": request_id, **values})


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

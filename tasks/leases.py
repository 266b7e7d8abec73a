"""The lease that an attempt takes before it does anything, and how it gives a request back that it may not finish."""

from __future__ import annotations

import asyncio
from datetime import datetime
from hashlib import sha1
from typing import Final

from tasks import keys
from tasks.attempt import Attempt, Deps
from tasks.contracts.message import Message
from tasks.contracts.row import Row, Stage
from tasks.errors import LeaseLost, SluiceError, StoreError
from tasks.log import get_logger
from tasks.stores.outbox import row_of
from tasks.stores.register import Opened, Verdict
from tasks.stores.relay import publish_waiting, reference_of, row_id_of

log = get_logger()

_LOOK_SECONDS: Final = 1.0


class Leases:
    """Takes and gives back the leases of one pool's attempts at one stage."""

    def __init__(self, deps: Deps, stage: Stage) -> None:
        self._deps = deps
        self._stage = stage

    async def begin(
        self, message: Message, text: bytes, holder: str, now: datetime, *, attempts: int
    ) -> tuple[Verdict, int]:
        """Take the lease for ``message``, whose JSON is ``text``: what a newer version knows of it included."""
        ref = reference_of(message)
        settings = self._deps.settings
        seal = sha1(text, usedforsecurity=False).hexdigest()
        for _ in range(2):
            begun = await self._deps.register.begin(
                ref,
                stage=self._stage,
                revision=message.revision,
                digest=message.digest,
                holder=holder,
                now=now.timestamp(),
                lease=settings.leases.lease_seconds,
                attempts=attempts,
                queue=keys.queue(self._deps.pool, message.priority),
                seal=seal,
            )
            if begun.verdict is not Verdict.UNKNOWN:
                return begun.verdict, begun.attempts
            result = await self._deps.results.get(message.tenant, message.id, message.revision, message.step)
            if result and not message.delivery:
                return Verdict.FINISHED, 0
            if message.delivery and not result:
                return Verdict.MISMATCH, 0  # nobody calls back before the end
            log.warning("row restored from its message: the register had lost it")
            if await self._restore_row(message, text) is Opened.FINISHED:
                return Verdict.FINISHED, 0
        raise StoreError(f"{ref}: the register does not keep its row")

    async def _restore_row(self, message: Message, text: bytes) -> Opened:
        due = self._deps.now().timestamp() + self._deps.settings.leases.unpublished_seconds
        if message.delivery:
            await self._deps.register.outbox(row_of(message).changed(message=text.decode()), due=due)
            return Opened.CREATED
        row = Row(
            tenant=message.tenant,
            id=row_id_of(message),
            digest=message.digest,
            stage=self._stage,
            revision=message.revision,
            queue=keys.queue(self._deps.pool, message.priority),
            message=text.decode(),
            accepted_at=message.accepted_at.timestamp(),
            recorded=True,
            deadline=message.deadline.timestamp() if message.deadline else None,
            session=message.session_id or "",
        )
        [opened] = await self._deps.register.open([row], due=due)
        return opened

    async def unbegin(self, message: Message, holder: str) -> bool:
        """Give back what was begun while this worker was told to stop; tell whether it was."""
        ref, now = reference_of(message), self._deps.now().timestamp()
        try:
            await self._deps.register.postpone(ref, holder, due=now, counted=False)
            await publish_waiting(ref, self._deps.register, self._deps.relay, now=now)
        except LeaseLost:
            return False
        except StoreError as error:
            log.warning("not handed back, its lease ends by itself", error=str(error))
            return False
        return True

    async def hand_back(self, attempt: Attempt) -> None:
        """Give a request back that this worker was told to stop; it is published at once and does not count."""
        if await self._closed_already(attempt.message):
            return
        try:
            now = self._deps.now().timestamp()
            await self._deps.register.postpone(attempt.ref, attempt.id, due=now, counted=False)
            await publish_waiting(attempt.ref, self._deps.register, self._deps.relay, now=now)
        except LeaseLost:
            return
        log.info("handed back", attempt=attempt.number)

    async def _closed_already(self, message: Message) -> bool:
        """Close a request whose result is there. There is little time: a store that is away is not waited for."""
        if message.delivery:
            return False
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                standing = await self._deps.results.get(message.tenant, message.id, message.revision, message.step)
                if standing:
                    await self._deps.finisher.close(message, standing)
                return standing is not None
        except (TimeoutError, SluiceError) as error:
            log.warning("could not look for a result, handing back all the same", error=str(error))
            return False

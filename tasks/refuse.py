"""What a hop does with a message that it refuses: quarantine where nothing vouches for it, a record in every case."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import orjson
from msgspec import Struct

from tasks import keys
from tasks.access.grants import Grant
from tasks.audit.stream import AuditStream
from tasks.contracts.audit import Action, Decision, Event
from tasks.contracts.base import canonical
from tasks.contracts.message import Message
from tasks.errors import ForgedMessage, MalformedMessage
from tasks.log import get_logger
from tasks.stores.broker import Broker, Parcel

log = get_logger()

_MAX_NAME: Final = 128
_MAX_REASON: Final = 1024


class Refusals(Struct, frozen=True):
    """Keeps and records what ``worker`` of ``pool`` refuses."""

    worker: str
    pool: str
    audit: AuditStream
    broker: Broker
    now: Callable[[], datetime]

    async def quarantine(self, raw: dict[str, Any], error: MalformedMessage) -> None:
        """Keep a message that no door wrote, whole, where nothing consumes it; then say so in the audit."""
        reason = str(error)
        tenant, request_id = str(raw.get("tenant", ""))[:_MAX_NAME], str(raw.get("id", ""))[:_MAX_NAME]
        log.error("message quarantined", reason=reason, request_id=request_id)
        forged = isinstance(error, ForgedMessage)
        event = Event(
            action=Action.GRANT_FORGED if forged else Action.MESSAGE_QUARANTINED,
            actor=self.worker,
            tenant=tenant,
            request_id=request_id,
            resource=keys.QUARANTINE,
            decision=Decision.DENY,
            reason=reason,
            details={"pool": self.pool},
        )
        ref = keys.ref(tenant, request_id)
        put_aside = Parcel(keys.QUARANTINE, ref, _spelt(raw), self.now().timestamp(), reason[:_MAX_REASON])
        await self.broker.publish([put_aside])
        await self.audit.commit([event])

    async def replayed(self, message: Message, grant: Grant) -> None:
        """Say in the audit that the message of a finished request came again. It is dropped.

        A server that lost an acknowledgement does this too: many of them, or long after the end, are somebody's doing.
        """
        event = Event(
            action=Action.MESSAGE_REPLAYED,
            actor=self.worker,
            tenant=message.tenant,
            request_id=message.id,
            resource=self.pool,
            decision=Decision.DENY,
            reason="the request has ended already",
            details={"subject": grant.subject, "revision": message.revision},
        )
        await self.audit.commit([event])


def _spelt(raw: dict[str, Any]) -> str:
    """Return ``raw`` as JSON; what nests deeper than can be written is kept as text."""
    try:
        return canonical(raw).decode()
    except (orjson.JSONEncodeError, RecursionError):
        return canonical({"unreadable": repr(raw)}).decode()

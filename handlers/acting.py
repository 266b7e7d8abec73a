"""What doors for people share: who acts, whether they may, and the record of what they may not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from tasks.access.gate import Caller, Gate
from tasks.access.policy import Act
from tasks.audit.stream import AuditStream
from tasks.contracts.audit import Action, Decision, Event
from tasks.contracts.base import utc_now
from tasks.errors import Denied

AUDIT_SECONDS: Final = 30.0
"""How long a person waits for the audit."""


class Acting(Struct, frozen=True):
    """Somebody at a door: ``caller`` is who, ``gate`` what they may, ``audit`` where it is put on record."""

    caller: Caller
    gate: Gate
    audit: AuditStream
    now: Callable[[], datetime] = utc_now

    async def permit(self, act: Act, tenant: str) -> None:
        """Raise :class:`Denied`, once that is on record, unless they may do ``act`` to ``tenant``."""
        try:
            self.gate.permit(self.caller, act, tenant)
        except Denied as error:
            violation = self.event(Action.PERMISSION_VIOLATION, tenant, act.value, reason=str(error))
            await self.audit.commit([violation.changed(decision=Decision.DENY)], timeout=AUDIT_SECONDS)
            raise

    async def record(self, action: Action, tenant: str, resource: str, **details: Any) -> None:
        """Put on record what they do; it is durable when this returns."""
        await self.audit.commit([self.event(action, tenant, resource, **details)], timeout=AUDIT_SECONDS)

    def event(
        self, action: Action, tenant: str, resource: str, *, request_id: str = "", reason: str = "", **details: Any
    ) -> Event:
        """Return the record of ``action``."""
        return Event(
            action=action,
            actor=self.caller.subject,
            tenant=tenant,
            request_id=request_id,
            resource=resource,
            reason=reason,
            details=details,
        )

"""Alerts: a rule fires on audit records, once in a window across all processes, and that it did is audited too.

:meth:`Alerts.observe` is called where a record is born and returns at once. Everything else happens in a task of its
own, which no request waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final, Protocol

from tasks.contracts.audit import Action, AuditRecord, Event
from tasks.contracts.base import Contract, UtcDatetime
from tasks.contracts.words import new_id
from tasks.log import get_logger
from tasks.settings import AlertRule
from tasks.stores.windows import Windows

log = get_logger()

ACTIONS: Final[Mapping[str, Action]] = MappingProxyType(
    {
        "permission_violation": Action.PERMISSION_VIOLATION,
        "model_override": Action.MODEL_OVERRIDE,
        "intent_override": Action.INTENT_OVERRIDE,
        "grant_forged": Action.GRANT_FORGED,
        "message_quarantined": Action.MESSAGE_QUARANTINED,
        "message_replayed": Action.MESSAGE_REPLAYED,
        "audit_gap": Action.AUDIT_GAP,
        "dead_letter": Action.REQUEST_DEAD_LETTERED,
        "model_rejected": Action.MODEL_REFUSED,
        "quota_exceeded": Action.QUOTA_EXCEEDED,
        "request_rejected": Action.REQUEST_REJECTED,
        "attempt_failed": Action.ATTEMPT_FAILED,
        "callback_failed": Action.CALLBACK_FAILED,
    }
)
"""What each type of alert fires on."""

LEASE_SECONDS: Final = 60.0
"""How long a process that raised an alert has to bring it to its targets, all tries included."""
_UNVOUCHED: Final = frozenset({Action.GRANT_FORGED, Action.MESSAGE_QUARANTINED})
"""What nobody vouches for names any tenant it likes: all of it shares one window."""
_WAITING: Final = 1000
_QUIET: Final = 4096
_CLOSE_SECONDS: Final = 5.0


class Alert(Contract, frozen=True, kw_only=True):
    """What a target gets. ``count`` records were seen in the window; ``record`` is the last of them, redacted."""

    id: str
    type: str
    severity: str
    tenant: str
    count: int
    window_seconds: int
    time: UtcDatetime
    record: AuditRecord


class Target(Protocol):
    """Where alerts go."""

    name: str

    async def send(self, alert: Alert) -> None:
        """Bring ``alert`` there, with a bounded number of tries; raise where it could not be done."""


class LogTarget:
    """The process's log: an error where it is high or critical, else a warning."""

    name = "log"

    async def send(self, alert: Alert) -> None:
        """See :class:`Target`."""
        say = log.error if alert.severity in {"high", "critical"} else log.warning
        record = alert.record
        say(
            "alert",
            alert=alert.type,
            severity=alert.severity,
            tenant=alert.tenant,
            count=alert.count,
            request_id=record.request_id,
            action=record.action.value,
            actor=record.actor,
            reason=record.reason,
        )


class Alerts:
    """Matches records against ``rules`` and tells ``targets``. Not shared between event loops.

    ``actor`` is this process in the audit; ``report`` is given by :meth:`attach`, as the stream is made after this.
    """

    def __init__(
        self,
        rules: Sequence[AlertRule],
        *,
        targets: Sequence[Target],
        windows: Windows,
        actor: str,
        now: Callable[[], datetime],
    ) -> None:
        self._rules: dict[Action, list[AlertRule]] = {}
        for rule in rules:
            self._rules.setdefault(ACTIONS[rule.type], []).append(rule)
        self._targets = targets
        self._windows = windows
        self._actor = actor
        self._now = now
        self._report: Callable[[Event], object] = lambda _event: None
        self._queue: asyncio.Queue[tuple[AlertRule, AuditRecord]] = asyncio.Queue(_WAITING)
        self._quiet: dict[tuple[str, str], float] = {}
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None

    def attach(self, report: Callable[[Event], object]) -> None:
        """Have ``report`` write that an alert was raised."""
        self._report = report

    def observe(self, record: AuditRecord) -> None:
        """Look at a record that was born. Never waits, never raises."""
        rules = self._rules.get(record.action)
        if rules is None:
            return
        for rule in rules:
            if self._quiet.get(_place(rule, record), 0.0) > record.time.timestamp():
                continue
            try:
                self._queue.put_nowait((rule, record))
            except asyncio.QueueFull:
                # The records themselves are in the audit; what is lost is that somebody is called.
                self._dropped += 1
        if self._task is None and not self._queue.empty():
            self._task = asyncio.create_task(self._run(), name="alerts")

    async def close(self) -> None:
        """Raise what still waits, within a few seconds; call it before the stream is closed."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._queue.join()
        except TimeoutError:
            log.exception("alerts not raised", left=self._queue.qsize())
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def _run(self) -> None:
        while True:
            rule, record = await self._queue.get()
            try:
                await self._consider(rule, record)
            except Exception as error:
                log.exception("alert not raised", alert=rule.type, tenant=record.tenant, error=str(error))
            finally:
                self._queue.task_done()
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                log.error("records not looked at for alerts: too many at once", records=dropped)

    async def _consider(self, rule: AlertRule, record: AuditRecord) -> None:
        place = _place(rule, record)
        now = self._now().timestamp()
        if self._quiet.get(place, 0.0) > now:
            return
        name = f"{record.stream}#{record.sequence}"
        window = rule.window_seconds
        count = await self._windows.claim(*place, name, threshold=rule.threshold, window=window, lease=LEASE_SECONDS)
        if count is None:
            return
        alert = Alert(
            id=new_id(),
            type=rule.type,
            severity=rule.severity,
            tenant=record.tenant,
            count=count,
            window_seconds=window,
            time=self._now(),
            record=record,
        )
        failed = await self._tell(alert)
        self._report(self._event(alert, failed))
        # Who could not be told is told by the next one, which need not wait for the end of the window.
        silence = min(window, LEASE_SECONDS) if failed else window
        await self._windows.keep(*place, name, window=silence)
        if len(self._quiet) >= _QUIET:
            self._quiet.clear()
        self._quiet[place] = now + silence

    async def _tell(self, alert: Alert) -> list[str]:
        """Tell every target; return the names of those that could not be told."""
        failed = []
        for target in self._targets:
            try:
                async with asyncio.timeout(LEASE_SECONDS / 2):
                    await target.send(alert)
            except Exception as error:
                failed.append(target.name)
                log.exception(
                    "alert not delivered", alert=alert.type, id=alert.id, target=target.name, error=str(error)
                )
        return failed

    def _event(self, alert: Alert, failed: Sequence[str]) -> Event:
        return Event(
            action=Action.ALERT_RAISED,
            actor=self._actor,
            tenant=alert.tenant,
            request_id=alert.record.request_id,
            resource=f"alert:{alert.type}",
            details={
                "alert": alert.id,
                "severity": alert.severity,
                "count": alert.count,
                "window_seconds": alert.window_seconds,
                "record": f"{alert.record.stream}#{alert.record.sequence}",
                "told": ",".join(target.name for target in self._targets if target.name not in failed),
                "failed": ",".join(failed),
            },
        )


def _place(rule: AlertRule, record: AuditRecord) -> tuple[str, str]:
    """Return what has a window of its own: a rule and a tenant."""
    return rule.type, "" if record.action in _UNVOUCHED else record.tenant
